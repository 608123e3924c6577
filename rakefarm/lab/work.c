/* work SECONDS TAG: what a command of an emulated host does, which is to sleep SECONDS / speed and take no core.

   The file `speed` beside this program holds the host's true speed (seconds of work done in a second); it is read at
   every start, so that a host can change. The file `log` beside it gets a line "TAG START END", both in seconds of the
   monotonic clock, when the work is done: what truly ran, whatever clients and servers say. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Opens the file `name` in the directory of this program. */
static int open_beside(const char *name, int flags)
{
	char path[4096];
	const char *self = (const char *)getauxval(AT_EXECFN);
	const char *slash = self ? strrchr(self, '/') : NULL;
	int directory = slash ? (int)(slash - self + 1) : 0;
	if (snprintf(path, sizeof path, "%.*s%s", directory, self ? self : "", name) >= (int)sizeof path)
		return -1;
	return open(path, flags | O_CLOEXEC, 0666);
}

int main(int argc, char **argv)
{
	double start = now(), speed = 0, end;
	char text[256];
	struct timespec until;
	ssize_t length;
	int file;

	if (argc != 3 || (file = open_beside("speed", O_RDONLY)) < 0)
		return 2;
	length = read(file, text, sizeof text - 1);
	if (length > 0) {
		text[length] = 0;
		speed = atof(text);
	}
	close(file);
	if (!(speed > 0))
		return 2;
	end = start + atof(argv[1]) / speed;
	until.tv_sec = (time_t)end;
	until.tv_nsec = (long)((end - (double)until.tv_sec) * 1e9);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
		;
	length = snprintf(text, sizeof text, "%.100s %.6f %.6f\n", argv[2], start, now());
	if ((file = open_beside("log", O_WRONLY | O_APPEND | O_CREAT)) < 0 || write(file, text, length) != length)
		return 2;
	return 0;
}
