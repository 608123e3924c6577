/* What the three files know of one another. */
#ifndef HELLO_H
#define HELLO_H

/* Print a greeting for that name. */
void greet(const char *name);

/* The square of a number. */
long square(int number);

#endif
