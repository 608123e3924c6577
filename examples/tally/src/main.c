/* The command line: options, then a subcommand from one of three lists. */
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "commands.h"

static const struct Command *const lists[] = {row_commands, figure_commands, shape_commands};

#define LIST_COUNT (sizeof lists / sizeof *lists)

static void print_usage(FILE *to)
{
    fputs("usage: tally [-t | -d CHARACTER] [-a | -j] COMMAND ARGUMENT ...\n\n", to);
    for (size_t i = 0; i < LIST_COUNT; i++)
        for (const struct Command *command = lists[i]; command->name != NULL; command++)
            fprintf(to, "  %-10s %-33s %s\n", command->name, command->arguments, command->purpose);
    fputs("\n"
          "  -t            fields are separated by tabs (the default for names in .tsv)\n"
          "  -d CHARACTER  fields are separated by that character\n"
          "  -a            print tables with aligned columns\n"
          "  -j            print tables as JSON\n"
          "\n"
          "FILE may be - for standard input. A COLUMN is a name, or %2 for the second one.\n"
          "EXPR: or and not == != < <= > >= ~ (contains) + - * / % abs() sqrt() round() length() missing();\n"
          "      names with blanks in [brackets], texts in 'quotes'.\n",
          to);
}

static const struct Command *find_command(const char *name)
{
    for (size_t i = 0; i < LIST_COUNT; i++)
        for (const struct Command *command = lists[i]; command->name != NULL; command++)
            if (strcmp(command->name, name) == 0)
                return command;
    return NULL;
}

/* Fill in the options; the index of the first argument that is none. */
static int parse_options(int count, char **arguments, struct Options *options)
{
    int at = 1;

    for (; at < count && arguments[at][0] == '-' && arguments[at][1] != '\0'; at++) {
        const char *option = arguments[at];

        if (strcmp(option, "-t") == 0)
            options->delimiter = '\t';
        else if (strcmp(option, "-a") == 0)
            options->format = FORMAT_ALIGNED;
        else if (strcmp(option, "-j") == 0)
            options->format = FORMAT_JSON;
        else if (strcmp(option, "-d") == 0 && at + 1 < count && strlen(arguments[at + 1]) == 1
                 && strchr("\"\r\n", arguments[at + 1][0]) == NULL)
            options->delimiter = arguments[++at][0];
        else
            fail("option %s is not understood; see tally help", option);
    }
    return at;
}

int main(int count, char **arguments)
{
    struct Options options = {'\0', FORMAT_SEPARATED};
    const struct Command *command;
    int at;

    if (count == 2 && (strcmp(arguments[1], "help") == 0 || strcmp(arguments[1], "--help") == 0)) {
        print_usage(stdout);
        return 0;
    }
    at = parse_options(count, arguments, &options);
    if (at >= count) {
        print_usage(stderr);
        return 2;
    }
    command = find_command(arguments[at]);
    if (command == NULL)
        fail("no command \"%s\"; see tally help", arguments[at]);
    if (count - at - 1 < command->least || count - at - 1 > command->most)
        fail("usage: tally %s %s", command->name, command->arguments);
    return command->run(&options, count - at, arguments + at);
}
