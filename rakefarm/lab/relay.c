/* relay ADDRESS PORT MICROSECONDS …: for each three another port of that IPv4 address that leads to PORT there, and
   carries what is said in either direction so much later. One line each says which port it is, in their order; the end
   of standard input ends us.

   What is read at one moment is one piece: it leaves when its time has come, after what came before. The end of a
   stream takes as long. The handshake of a connection is not delayed. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 16, QUEUED = 1 << 22, MOST_WIRES = 256 };

struct piece {
	struct piece *next;
	int64_t due_ns;
	size_t size, done; /* of size 0: the end of the stream */
	char data[];
};

struct way {
	struct piece *first, **last;
	size_t bytes;
	int read_all, written_all;
};

struct wire {
	int listener;
	const char *address;
	int port;
	int64_t delay_ns;
};

struct connection {
	struct connection *next;
	int ends[2], gone;
	int64_t delay_ns;
	struct way ways[2]; /* way i leads from end i to the other */
};

static struct wire wires[MOST_WIRES];
static struct connection *connections;

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in place(const struct wire *wire, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	if (inet_pton(AF_INET, wire->address, &address.sin_addr) != 1) {
		fprintf(stderr, "relay: %s is no IPv4 address\n", wire->address);
		exit(2);
	}
	return address;
}

static void open_wire(struct wire *wire)
{
	struct sockaddr_in address = place(wire, 0);
	socklen_t size = sizeof address;
	wire->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (wire->listener < 0 || bind(wire->listener, (struct sockaddr *)&address, size) < 0 ||
	    listen(wire->listener, 512) < 0 || getsockname(wire->listener, (struct sockaddr *)&address, &size) < 0)
		fail("relay");
	printf("%d\n", ntohs(address.sin_port));
}

static void accept_one(struct wire *wire)
{
	int one = 1, here = accept4(wire->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), there;
	struct sockaddr_in address = place(wire, wire->port);
	struct connection *connection;
	if (here < 0)
		return;
	/* On loopback a connection is there, or refused, at once. */
	there = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	connection = calloc(1, sizeof *connection);
	if (there < 0 || !connection || connect(there, (struct sockaddr *)&address, sizeof address) < 0) {
		struct linger reset = {1, 0}; /* as who connects would be told by the server's kernel */
		setsockopt(here, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		close(here);
		if (there >= 0)
			close(there);
		free(connection);
		return;
	}
	setsockopt(here, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(there, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	connection->ends[0] = here;
	connection->ends[1] = there;
	connection->delay_ns = wire->delay_ns;
	for (int i = 0; i < 2; i++)
		connection->ways[i].last = &connection->ways[i].first;
	connection->next = connections;
	connections = connection;
}

static void take(struct connection *connection, int i)
{
	static char buffer[PIECE];
	struct way *way = &connection->ways[i];
	ssize_t size = recv(connection->ends[i], buffer, sizeof buffer, MSG_DONTWAIT);
	struct piece *piece;
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size < 0) /* reset: the other end learns of it as of an end */
		size = 0;
	if (!(piece = malloc(sizeof *piece + size)))
		fail("relay");
	*piece = (struct piece){.due_ns = now_ns() + connection->delay_ns, .size = size};
	memcpy(piece->data, buffer, size);
	*way->last = piece;
	way->last = &piece->next;
	way->bytes += size;
	way->read_all = size == 0;
}

/* Put out what is due; answers when the next piece is, 0 when the end takes no more for now. */
static int64_t put(struct connection *connection, int i)
{
	struct way *way = &connection->ways[i];
	int64_t now = now_ns();
	while (way->first) {
		struct piece *piece = way->first;
		ssize_t size;
		if (piece->due_ns > now)
			return piece->due_ns;
		if (piece->size == 0) {
			shutdown(connection->ends[1 - i], SHUT_WR);
			way->written_all = 1;
		} else {
			size = send(connection->ends[1 - i], piece->data + piece->done, piece->size - piece->done,
			            MSG_DONTWAIT | MSG_NOSIGNAL);
			if (size < 0 && (errno == EAGAIN || errno == EINTR))
				return 0;
			if (size < 0) {
				connection->gone = 1;
				return INT64_MAX;
			}
			piece->done += size;
			if (piece->done < piece->size)
				continue;
		}
		way->bytes -= piece->size;
		way->first = piece->next;
		if (!way->first)
			way->last = &way->first;
		free(piece);
	}
	return INT64_MAX;
}

static void sweep(void)
{
	struct connection **place = &connections;
	while (*place) {
		struct connection *connection = *place;
		if (!connection->gone && !(connection->ways[0].written_all && connection->ways[1].written_all)) {
			place = &connection->next;
			continue;
		}
		*place = connection->next;
		for (int i = 0; i < 2; i++) {
			close(connection->ends[i]);
			for (struct piece *piece = connection->ways[i].first, *next; piece; piece = next) {
				next = piece->next;
				free(piece);
			}
		}
		free(connection);
	}
}

int main(int argc, char **argv)
{
	int count = (argc - 1) / 3;
	struct pollfd *polls = NULL;
	size_t room = 0;
	if (argc < 4 || argc % 3 != 1 || count > MOST_WIRES) {
		fprintf(stderr, "relay ADDRESS PORT MICROSECONDS …\n");
		return 2;
	}
	for (int i = 0; i < count; i++) {
		char **words = &argv[1 + 3 * i];
		wires[i] = (struct wire){.address = words[0], .port = atoi(words[1]), .delay_ns = atoll(words[2]) * 1000};
		open_wire(&wires[i]);
	}
	fflush(stdout);
	prctl(PR_SET_TIMERSLACK, 1UL);
	for (;;) {
		size_t used = 1 + count;
		int64_t next = INT64_MAX;
		struct timespec pause, *wait = NULL;
		struct connection *connection;
		for (connection = connections; connection; connection = connection->next)
			used += 2;
		if (used > room && !(polls = realloc(polls, (room = 2 * used) * sizeof *polls)))
			fail("relay");
		polls[0] = (struct pollfd){.fd = 0, .events = POLLIN};
		for (int i = 0; i < count; i++)
			polls[1 + i] = (struct pollfd){.fd = wires[i].listener, .events = POLLIN};
		used = 1 + count;
		for (connection = connections; connection; connection = connection->next)
			for (int i = 0; i < 2; i++) {
				int64_t due = put(connection, 1 - i);
				short events = due == 0 ? POLLOUT : 0;
				struct way *way = &connection->ways[i];
				if (!way->read_all && way->bytes < QUEUED)
					events |= POLLIN;
				if (due && due < next)
					next = due;
				/* Nothing is asked of it, and it has hung up: poll would tell of that without end. */
				polls[used++] = (struct pollfd){.fd = events ? connection->ends[i] : -1, .events = events};
			}
		if (next != INT64_MAX) {
			int64_t left = next - now_ns();
			left = left < 0 ? 0 : left;
			pause.tv_sec = left / 1000000000LL;
			pause.tv_nsec = left % 1000000000LL;
			wait = &pause;
		}
		if (ppoll(polls, used, wait, NULL) < 0 && errno != EINTR)
			fail("ppoll");
		if (polls[0].revents)
			return 0;
		used = 1 + count;
		for (connection = connections; connection; connection = connection->next)
			for (int i = 0; i < 2; i++, used++)
				if (polls[used].revents & (POLLIN | POLLHUP | POLLERR) && !connection->ways[i].read_all)
					take(connection, i);
		for (int i = 0; i < count; i++)
			if (polls[1 + i].revents)
				accept_one(&wires[i]);
		sweep();
	}
}
