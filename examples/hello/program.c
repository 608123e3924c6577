#include <stdio.h>

#include "hello.h"

int main(int argc, char *argv[])
{
    greet(argc > 1 ? argv[1] : "farm");
    for (int number = 1; number <= 5; number++)
        printf("%d squared is %ld\n", number, square(number));
    return 0;
}
