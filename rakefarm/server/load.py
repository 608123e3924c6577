"""The live load, from psutil: sampled by the listener alone, ten times a second.

`psutil.cpu_percent()` answers 0.0 the first time in each process, so a fresh worker that sampled for itself would
underbid everyone; one sampler publishes for all. The processors counted are those that the server may run
on: a server pinned to two cores (taskset, a cpuset) neither offers nor prices the others.
"""

import time

import psutil

from rakefarm.market.bid import Load

PERIOD_S = 0.1
SMOOTHING_S = 0.25
"""Time constant of the average: one sample of 0.1 s counts in ticks of 10 ms, so it is 10 % wrong by itself."""


class Sampler:
    """Reads the load; keep one a server and call `sample` at its own rhythm."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._times()
        self._at = time.monotonic()
        self._busy = 0.0
        self._io_wait = 0.0

    def _times(self) -> tuple[int, float, float]:
        """Cores, and their busy and I/O-waiting seconds since boot."""
        own = set(self._process.cpu_affinity())
        busy = waiting = 0.0
        cores = 0
        for number, times in enumerate(psutil.cpu_times(percpu=True)):
            if number in own:
                cores += 1
                busy += times.user + times.nice + times.system + times.irq + times.softirq + times.steal
                waiting += times.iowait
        return cores or 1, busy, waiting

    def sample(self) -> Load:
        """The load now: busy cores of the last quarter second or so, memory as the kernel estimates it."""
        now = time.monotonic()
        times = self._times()
        elapsed = max(now - self._at, 1e-3)
        cores = times[0]
        if cores == self._before[0]:
            share = min(1.0, elapsed / SMOOTHING_S)
            busy = min(cores, max(0.0, (times[1] - self._before[1]) / elapsed))
            waiting = min(1.0, max(0.0, (times[2] - self._before[2]) / elapsed / cores))
            self._busy += share * (busy - self._busy)
            self._io_wait += share * (waiting - self._io_wait)
        self._before, self._at = times, now
        memory = psutil.virtual_memory()
        return Load(cores, self._busy, self._io_wait, memory.available, memory.total)


def usable_cores() -> int:
    """How many processors this process may run on."""
    return len(psutil.Process().cpu_affinity()) or 1


def tree_usage(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of all that a running executor has started; zeros when it is gone."""
    cpu_s, memory_bytes = 0.0, 0
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return 0.0, 0
    for child in children:
        try:
            with child.oneshot():
                times = child.cpu_times()
                cpu_s += times.user + times.system + times.children_user + times.children_system
                memory_bytes += child.memory_info().rss
        except psutil.Error:
            continue
    return cpu_s, memory_bytes
