#include "hello.h"

long square(int number)
{
    return (long)number * number;
}
