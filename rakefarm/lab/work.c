/* work SECONDS TAG: what a command of an emulated host does, which is to sleep for as long as SECONDS of work on a
   processor of speed 1 take there, and to use no processor.

   The file `speed` beside this program says how fast the host truly is: "SPEED", or "SPEED CORES SLOTS" where commands
   may have to share the cores. Each then does SPEED × min(1, CORES / (commands + busy)) of its work in a second, as the
   simulator and the servers' prices have it (market/curve.py). Busy are the cores that other users keep busy: the file
   `load` beside this program has lines "TIME CORES", from when on (seconds of the monotonic clock, ascending) there are
   how many; before the first as there. A command that runs holds a lock on a byte of the file `running`, so they can
   be counted, and who is killed is not counted any more. The file `log` gets a line "TAG START END" when the work is
   done: what truly ran, whatever clients and servers say. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

#define STEP 0.02        /* seconds between two looks at what else goes on, */
#define STEP_EACH 0.001  /* and more the more commands look */
#define MOST 4096 /* commands of one host */

struct load {
	double time, busy;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void sleep_until(double end)
{
	struct timespec until;
	until.tv_sec = (time_t)end;
	until.tv_nsec = (long)((end - (double)until.tv_sec) * 1e9);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
		;
}

static void path_beside(char *path, size_t size, const char *name)
{
	const char *self = (const char *)getauxval(AT_EXECFN);
	const char *slash = self ? strrchr(self, '/') : NULL;
	int directory = slash ? (int)(slash - self + 1) : 0;
	if (snprintf(path, size, "%.*s%s", directory, self ? self : "", name) >= (int)size)
		exit(2);
}

static int open_beside(const char *name, int flags)
{
	char path[4096];
	path_beside(path, sizeof path, name);
	return open(path, flags | O_CLOEXEC, 0666);
}

static struct load *read_load(int *count)
{
	char path[4096];
	struct load *loads = NULL, next;
	FILE *file;
	*count = 0;
	path_beside(path, sizeof path, "load");
	if (!(file = fopen(path, "re")))
		return NULL;
	while (fscanf(file, "%lf %lf", &next.time, &next.busy) == 2) {
		if (*count % 256 == 0 && !(loads = realloc(loads, (*count + 256) * sizeof *loads)))
			exit(2);
		loads[(*count)++] = next;
	}
	fclose(file);
	return loads;
}

static double busy_at(const struct load *loads, int count, double time)
{
	double busy = count ? loads[0].busy : 0;
	for (int i = 1; i < count && loads[i].time <= time; i++)
		busy = loads[i].busy;
	return busy;
}

/* Hold a byte that no other command holds, until we end. */
static void enter(int running)
{
	for (int place = 0; place < MOST; place++) {
		struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1};
		if (fcntl(running, F_OFD_SETLK, &lock) == 0)
			return;
	}
	exit(2);
}

/* How many bytes of these others hold. The kernel tells of any one of them, and never of our own. */
static int held(int running, off_t from, off_t end)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from, .l_len = end - from};
	if (from >= end || fcntl(running, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
		return 0;
	return 1 + held(running, from, lock.l_start) + held(running, lock.l_start + 1, end);
}

int main(int argc, char **argv)
{
	double start = now(), speed = 0, cores = 0, slots = 0, left, time = start;
	char text[256];
	struct load *loads;
	ssize_t length;
	int file, count, running;

	if (argc != 3 || (file = open_beside("speed", O_RDONLY)) < 0)
		return 2;
	length = read(file, text, sizeof text - 1);
	close(file);
	if (length <= 0)
		return 2;
	text[length] = 0;
	if (sscanf(text, "%lf %lf %lf", &speed, &cores, &slots) < 1 || !(speed > 0))
		return 2;
	left = atof(argv[1]);
	loads = read_load(&count);
	if (!cores || (slots <= cores && count <= 1 && busy_at(loads, count, start) == 0)) {
		sleep_until(start + left / speed);
	} else {
		if ((running = open_beside("running", O_RDWR | O_CREAT)) < 0)
			return 2;
		enter(running);
		while (left > 0) {
			int commands = 1 + held(running, 0, MOST);
			double share = cores / (commands + busy_at(loads, count, time));
			double rate = speed * (share < 1 ? share : 1), step = STEP + commands * STEP_EACH;
			sleep_until(time + (left / rate < step ? left / rate : step));
			left -= (now() - time) * rate;
			time = now();
		}
	}
	length = snprintf(text, sizeof text, "%.100s %.6f %.6f\n", argv[2], start, now());
	if ((file = open_beside("log", O_WRONLY | O_APPEND | O_CREAT)) < 0 || write(file, text, length) != length)
		return 2;
	return 0;
}
