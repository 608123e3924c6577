/* The launcher: a compiler call's stand-in, as small as can be. It asks the helper over its Unix socket, and writes what
 * the compiler would have written, or executes the compiler. Compiled on first use by the user's own compiler.
 *
 *     rakefarm-cc COMPILER ARGS…      or, by a link of the compiler's name:  gcc ARGS…
 *
 * The dialogue is described in dialogue.py, the socket's place in locations.py. Without a helper it executes the Python
 * wrapper, which starts one. PYTHON and ROOT are defined on the command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define OWN_FAULT 100

extern char **environ;

/* Whether `path` is a directory of this user's alone. */
static int is_private(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid() && !(status.st_mode & 077);
}

static int connect_to_helper(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *named = getenv("RAKEFARM_CC_DIRECTORY"), *runtime = getenv("XDG_RUNTIME_DIR");
    char directory[sizeof address.sun_path];
    int length, sock;

    if (named && *named)
        length = snprintf(directory, sizeof directory, "%s", named);
    else if (runtime && *runtime)
        length = snprintf(directory, sizeof directory, "%s/rakefarm-cc", runtime);
    else
        length = snprintf(directory, sizeof directory, "/tmp/rakefarm-cc-%u", (unsigned)geteuid());
    if (length < 0 || (size_t)length + sizeof "/socket" > sizeof directory || !is_private(directory))
        return -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%.*s/socket", length, directory);
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock >= 0 && connect(sock, (struct sockaddr *)&address, sizeof address) == 0)
        return sock;
    if (sock >= 0)
        close(sock);
    return -1;
}

static int write_all(int descriptor, const char *data, size_t size)
{
    while (size) {
        ssize_t count = write(descriptor, data, size);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        data += count;
        size -= (size_t)count;
    }
    return 0;
}

static int read_all(int descriptor, char *data, size_t size)
{
    while (size) {
        ssize_t count = read(descriptor, data, size);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        data += count;
        size -= (size_t)count;
    }
    return 0;
}

static char *append(char *at, const char *text)
{
    size_t size = strlen(text) + 1;
    memcpy(at, text, size);
    return at + size;
}

static int send_request(int sock, int count, char **words)
{
    char directory[PATH_MAX], number[32], mask[32];
    size_t size = 0;
    char *request, *at;
    uint32_t rest;
    mode_t umasked = umask(0);
    int sent, index;

    umask(umasked);
    if (!getcwd(directory, sizeof directory))
        return -1;
    snprintf(mask, sizeof mask, "%o", (unsigned)umasked);
    snprintf(number, sizeof number, "%d", count);
    for (index = 0; index < count; index++)
        size += strlen(words[index]) + 1;
    for (index = 0; environ[index]; index++)
        size += strlen(environ[index]) + 1;
    size += strlen(mask) + 1 + 2 + strlen(directory) + 1 + strlen(number) + 1;
    request = malloc(size + 8);
    if (!request || size > UINT32_MAX)
        return -1;
    rest = (uint32_t)size;
    memcpy(request, "rkc1", 4);
    memcpy(request + 4, &rest, 4);
    at = append(request + 8, mask);
    at = append(at, isatty(2) ? "1" : "0");
    at = append(at, directory);
    at = append(at, number);
    for (index = 0; index < count; index++)
        at = append(at, words[index]);
    for (index = 0; environ[index]; index++)
        at = append(at, environ[index]);
    sent = write_all(sock, request, size + 8);
    free(request);
    return sent;
}

/* Execute the Python wrapper, which does the same as we, and starts the helper. */
static void become_wrapper(int count, char **words)
{
    char **arguments = calloc((size_t)count + 4, sizeof *arguments);
    static char code[] = "import sys; sys.path.insert(0, " ROOT "); from rakefarm.cc.entry import main;"
                         " sys.exit(main(sys.argv[1:]))";
    if (!arguments)
        exit(OWN_FAULT);
    arguments[0] = PYTHON;
    arguments[1] = "-c";
    arguments[2] = code;
    memcpy(arguments + 3, words, (size_t)count * sizeof *words);
    execv(PYTHON, arguments);
    fprintf(stderr, "rakefarm cc: can't execute %s: %s\n", PYTHON, strerror(errno));
    exit(OWN_FAULT);
}

int main(int count, char **words)
{
    const char *slash = strrchr(words[0], '/');
    char *name = slash ? (char *)slash + 1 : words[0];
    const char *off = getenv("RAKEFARM_CC");
    uint32_t answer[5];
    char *data, *why;
    int sock;

    if (strcmp(name, "rakefarm-cc") == 0) {
        words++;
        count--;
    } else {
        words[0] = name;
    }
    if (count < 1 || words[0][0] == '-' || (off && strcmp(off, "off") == 0))
        become_wrapper(count, words);
    sock = connect_to_helper();
    if (sock < 0 || send_request(sock, count, words) || read_all(sock, (char *)answer, sizeof answer))
        become_wrapper(count, words);
    data = malloc((size_t)answer[2] + answer[3] + answer[4] + 1);
    if (!data || read_all(sock, data, (size_t)answer[2] + answer[3] + answer[4]))
        become_wrapper(count, words);
    if (answer[0] == 0) {
        write_all(1, data, answer[2]);
        write_all(2, data + answer[2], answer[3]);
        return (int)answer[1];
    }
    data[answer[4]] = 0;
    if (!*data || strlen(data) >= answer[4])
        become_wrapper(count, words);
    name = data + strlen(data) + 1;
    why = name + strlen(name) + 1;
    if (why > data + answer[4])
        become_wrapper(count, words);
    if (*why)
        fprintf(stderr, "rakefarm cc: here: %s\n", why);
    words[0] = name;
    /* The compiler keeps our end open: the helper counts it for as long as it runs. */
    fcntl(sock, F_SETFD, 0);
    setenv("RAKEFARM_CC", "off", 1);
    execv(data, words);
    fprintf(stderr, "rakefarm cc: can't execute %s: %s\n", data, strerror(errno));
    return OWN_FAULT;
}
