/* What a hostile command would try, one attack a call: `attack NAME ARGUMENT...`. Used by `rakeserver --selftest` and the
   tests of abuse. It prints what it got hold of; exit status 0 means that the system let it. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int refused(const char *what)
{
    perror(what);
    return 1;
}

static int inet(int kind, const char *port)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    int sock = socket(AF_INET, kind, 0);
    if (sock < 0)
        return refused("socket");
    inet_pton(AF_INET, "127.0.0.1", &where.sin_addr);
    if (connect(sock, (struct sockaddr *)&where, sizeof where))
        return refused("connect");
    if (send(sock, "attack", 6, 0) != 6)
        return refused("send");
    return 0;
}

static int unix_socket(const char *name, int abstract, int pair)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    int ends[2];
    strncpy(where.sun_path + abstract, name, sizeof where.sun_path - 2);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name);
    if (pair) {
        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends))
            return refused("socketpair");
        return sendto(ends[0], "attack", 6, 0, (struct sockaddr *)&where, size) == 6 ? 0 : refused("sendto");
    }
    int sock = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (sock < 0)
        return refused("socket");
    return sendto(sock, "attack", 6, 0, (struct sockaddr *)&where, size) == 6 ? 0 : refused("sendto");
}

/* Every process that can be seen, until one of them gives away the needle. It is given to us backwards: our own shell,
   which has our arguments in memory, must not be what is found. */
static int search(const char *file, const char *backwards, int by_system_call)
{
    static char data[1 << 16], needle[256], self[32];
    size_t length = strlen(backwards);
    for (size_t at = 0; at < length && at < sizeof needle - 1; at++)
        needle[at] = backwards[length - 1 - at];
    if (readlink("/proc/self", self, sizeof self - 1) < 0) /* which is not getpid() with another namespace's /proc */
        return refused("/proc/self");
    struct dirent *entry;
    DIR *all = opendir("/proc");
    if (!all)
        return refused("/proc");
    while ((entry = readdir(all))) {
        char name[64];
        long pid = atol(entry->d_name);
        if (pid <= 0 || !strcmp(entry->d_name, self))
            continue;
        snprintf(name, sizeof name, "/proc/%ld/%s", pid, by_system_call || !strcmp(file, "mem") ? "maps" : file);
        FILE *opened = fopen(name, "r");
        if (!opened)
            continue;
        if (by_system_call || !strcmp(file, "mem")) {
            char line[512];
            unsigned long from, to;
            char how[8];
            snprintf(name, sizeof name, "/proc/%ld/mem", pid);
            int memory = by_system_call ? -1 : open(name, O_RDONLY);
            while (fgets(line, sizeof line, opened)) {
                if (sscanf(line, "%lx-%lx %7s", &from, &to, how) != 3 || strncmp(how, "rw", 2) || to - from > 64 << 20)
                    continue;
                for (; from < to; from += sizeof data - 64) {
                    size_t size = to - from < sizeof data ? to - from : sizeof data;
                    struct iovec here = {data, size}, there = {(void *)from, size};
                    ssize_t got = by_system_call ? process_vm_readv(pid, &here, 1, &there, 1, 0)
                                                 : pread(memory, data, size, from);
                    if (got > 0 && memmem(data, got, needle, strlen(needle)))
                        return 0;
                }
            }
            if (memory >= 0)
                close(memory);
        } else {
            size_t got = fread(data, 1, sizeof data, opened);
            if (memmem(data, got, needle, strlen(needle)))
                return 0;
        }
        fclose(opened);
    }
    fprintf(stderr, "nothing found\n");
    return 1;
}

static int daemon_with(const char *mark)
{
    if (fork())
        return 0;
    setsid();
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (fork())
        _exit(0);
    for (int file = 0; file < 3; file++)
        close(file);
    prctl(PR_SET_NAME, mark);
    sleep(600);
    _exit(0);
}

static int bomb(int most)
{
    int count = 0;
    for (; count < most; count++) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (!pid) {
            pause();
            _exit(0);
        }
    }
    printf("%d\n", count);
    return count == most ? 0 : refused("fork");
}

static int memory(long mebibytes)
{
    for (long done = 0; done < mebibytes; done++) {
        char *piece = malloc(1 << 20);
        if (!piece)
            return refused("malloc");
        memset(piece, 1, 1 << 20);
    }
    return 0;
}

static int fill(const char *name, long mebibytes)
{
    static char data[1 << 20];
    int file = open(name, O_CREAT | O_WRONLY, 0600);
    for (long done = 0; done < mebibytes; done++)
        if (write(file, data, sizeof data) != sizeof data)
            return refused("write");
    return 0;
}

static int many(int most)
{
    char name[32];
    for (int number = 0; number < most; number++) {
        snprintf(name, sizeof name, "file-%d", number);
        int file = open(name, O_CREAT | O_WRONLY, 0600);
        if (file < 0)
            return refused("open");
        close(file);
    }
    return 0;
}

static int descriptors(void)
{
    int extra = 0;
    for (int file = 3; file < 4096; file++)
        if (fcntl(file, F_GETFD) >= 0)
            extra++;
    printf("%d\n", extra);
    return extra ? 0 : 1;
}

int main(int count, char **words)
{
    const char *name = count > 1 ? words[1] : "", *first = count > 2 ? words[2] : "";
    if (!strcmp(name, "tcp"))
        return inet(SOCK_STREAM, first);
    if (!strcmp(name, "udp"))
        return inet(SOCK_DGRAM, first);
    if (!strcmp(name, "abstract"))
        return unix_socket(first, 1, 0);
    if (!strcmp(name, "pathname"))
        return unix_socket(first, 0, 0);
    if (!strcmp(name, "pair"))
        return unix_socket(first, 1, 1);
    if (!strcmp(name, "kill"))
        return kill(atoi(first), SIGTERM) ? refused("kill") : 0;
    if (!strcmp(name, "ptrace"))
        return ptrace(PTRACE_SEIZE, atoi(first), 0, 0) ? refused("ptrace") : 0;
    if (!strcmp(name, "environ"))
        return search("environ", first, 0);
    if (!strcmp(name, "mem"))
        return search("mem", first, 0);
    if (!strcmp(name, "vm"))
        return search("", first, 1);
    if (!strcmp(name, "cmdline"))
        return search("cmdline", first, 0);
    if (!strcmp(name, "daemon"))
        return daemon_with(first);
    if (!strcmp(name, "bomb"))
        return bomb(atoi(first));
    if (!strcmp(name, "memory"))
        return memory(atol(first));
    if (!strcmp(name, "fill"))
        return fill(first, atol(words[3]));
    if (!strcmp(name, "many"))
        return many(atoi(first));
    if (!strcmp(name, "descriptors"))
        return descriptors();
    if (!strcmp(name, "userns"))
        return unshare(CLONE_NEWUSER) ? refused("unshare") : 0;
    if (!strcmp(name, "uring"))
        return syscall(425, 8, (char[256]){0}) < 0 ? refused("io_uring_setup") : 0;
    if (!strcmp(name, "key"))
        return syscall(SYS_add_key, "user", "attack", "x", 1, -3) < 0 ? refused("add_key") : 0;
    fprintf(stderr, "no attack is called %s\n", name);
    return 2;
}
