/* A wire between two TUN devices, with a delay, a rate and a loss: what netem does, where the kernel has none.

   relay NAMESPACE DEVICE NAMESPACE DEVICE

   Both devices exist and are up. Conditions come on standard input, a line each: delay in microseconds (one way), rate
   in bits a second (0: none), loss and reordering in packets of a million. "ready" is printed once, and after each
   line; the end of standard input ends us. Each direction has a queue of its own, as a switched cable has.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 65600, QUEUE_BYTES = 4 << 20, QUEUE_PACKETS = 4096 };

struct packet {
    int64_t due_ns;
    int size;
    char *data;
};

struct direction {
    int from, to;
    int64_t line_free_ns; /* when the last packet has left the cable's start */
    int first, count, bytes;
    struct packet queue[QUEUE_PACKETS];
};

static int64_t delay_ns, rate_bps;
static uint32_t loss_ppm, reorder_ppm;
static uint64_t seed = 88172645463325252ULL;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int happens(uint32_t ppm)
{
    seed ^= seed << 13; /* xorshift64: Marsaglia 2003 */
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return ppm && seed % 1000000 < ppm;
}

static int open_device(const char *space, const char *name)
{
    char path[256];
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(path, sizeof path, "/var/run/netns/%s", space);
    int handle = open(path, O_RDONLY | O_CLOEXEC);
    if (handle < 0 || setns(handle, CLONE_NEWNET) < 0)
        fail(path);
    close(handle);
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0)
        fail("/dev/net/tun");
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(device, TUNSETIFF, &request) < 0)
        fail(name);
    return device;
}

/* Take in one packet; 0 when there is none. */
static int take(struct direction *way)
{
    static char buffer[LONGEST];
    ssize_t size = read(way->from, buffer, sizeof buffer);
    if (size <= 0)
        return 0;
    if (happens(loss_ppm) || way->count == QUEUE_PACKETS || way->bytes + size > QUEUE_BYTES)
        return 1;
    int64_t now = now_ns();
    if (way->line_free_ns < now)
        way->line_free_ns = now;
    if (rate_bps)
        way->line_free_ns += size * 8 * 1000000000LL / rate_bps;
    struct packet packet = {way->line_free_ns + delay_ns, size, malloc(size)};
    if (!packet.data)
        return 1;
    memcpy(packet.data, buffer, size);
    int place = (way->first + way->count) % QUEUE_PACKETS;
    if (way->count && happens(reorder_ppm)) { /* it overtakes the one before */
        int before = (place + QUEUE_PACKETS - 1) % QUEUE_PACKETS;
        int64_t due_ns = way->queue[before].due_ns;
        way->queue[place] = way->queue[before];
        way->queue[place].due_ns = packet.due_ns;
        packet.due_ns = due_ns;
        place = before;
    }
    way->queue[place] = packet;
    way->count++;
    way->bytes += size;
    return 1;
}

/* Put out what is due; answers when the next packet is. */
static int64_t put(struct direction *way)
{
    int64_t now = now_ns();
    while (way->count) {
        struct packet *packet = &way->queue[way->first];
        if (packet->due_ns > now)
            return packet->due_ns;
        if (write(way->to, packet->data, packet->size) < 0 && errno == EAGAIN)
            return now + 20000;
        free(packet->data);
        way->bytes -= packet->size;
        way->first = (way->first + 1) % QUEUE_PACKETS;
        way->count--;
    }
    return INT64_MAX;
}

static int read_conditions(void)
{
    char line[256];
    long long delay_us, rate;
    unsigned loss, reorder;
    ssize_t size = read(0, line, sizeof line - 1);
    if (size <= 0)
        return 0;
    line[size] = 0;
    if (sscanf(line, "%lld %lld %u %u", &delay_us, &rate, &loss, &reorder) == 4) {
        delay_ns = delay_us * 1000;
        rate_bps = rate;
        loss_ppm = loss;
        reorder_ppm = reorder;
        puts("ready");
        fflush(stdout);
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "relay NAMESPACE DEVICE NAMESPACE DEVICE\n");
        return 2;
    }
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int left = open_device(argv[1], argv[2]), right = open_device(argv[3], argv[4]);
    setns(home, CLONE_NEWNET);
    prctl(PR_SET_TIMERSLACK, 1UL);
    static struct direction ways[2];
    ways[0].from = ways[1].to = left;
    ways[0].to = ways[1].from = right;
    puts("ready");
    fflush(stdout);
    for (;;) {
        int64_t next = INT64_MAX;
        for (int i = 0; i < 2; i++) {
            int64_t due = put(&ways[i]);
            next = due < next ? due : next;
        }
        struct pollfd ready[3] = {{0, POLLIN, 0}, {left, POLLIN, 0}, {right, POLLIN, 0}};
        struct timespec pause, *wait = NULL;
        if (next != INT64_MAX) {
            int64_t left_ns = next - now_ns();
            left_ns = left_ns < 0 ? 0 : left_ns;
            pause.tv_sec = left_ns / 1000000000LL;
            pause.tv_nsec = left_ns % 1000000000LL;
            wait = &pause;
        }
        if (ppoll(ready, 3, wait, NULL) < 0 && errno != EINTR)
            fail("ppoll");
        if (ready[0].revents && !read_conditions())
            return 0;
        for (int i = 0; i < 2; i++)
            for (int taken = 0; taken < 64 && take(&ways[i]); taken++)
                ;
    }
}
