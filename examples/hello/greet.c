#include <stdio.h>

#include "hello.h"

void greet(const char *name)
{
    printf("hello, %s\n", name);
}
