/* commands: what the subcommands share with main.c, which finds and starts them. */
#ifndef TALLY_COMMANDS_H
#define TALLY_COMMANDS_H

#include "writer.h"

#define ANY_NUMBER 10000

struct Options {
    char delimiter; /* of the input; 0: by the file's name */
    enum Format format;
};

struct Command {
    const char *name;
    const char *arguments; /* for the usage text */
    const char *purpose;
    int least; /* how many arguments, without the name */
    int most;
    /* arguments[0] is the command's own name. Returns the exit status. */
    int (*run)(const struct Options *options, int count, char **arguments);
};

/* Each list ends with an entry whose name is NULL. */
extern const struct Command row_commands[];
extern const struct Command figure_commands[];
extern const struct Command shape_commands[];

/* Print the table in the wanted format, and free it. */
static inline void print_and_free(struct Table *table, const struct Options *options)
{
    print_table(table, options->format, options->delimiter == '\0' ? ',' : options->delimiter);
    table_free(table);
}

#endif
