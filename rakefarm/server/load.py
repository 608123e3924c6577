"""The live load, from psutil: sampled by the listener alone, ten times a second.

`psutil.cpu_percent()` answers 0.0 the first time in each process, so a fresh worker that sampled for itself would
underbid everyone; one sampler publishes for all. The processors counted are those that the server may run
on: a server pinned to two cores (taskset, a cpuset) neither offers nor prices the others.

What other users keep busy is everything but our own: the server's processes and all that they have started, whose time
is read from the kernel's own list of children, a few dozen small files, where psutil looks through all processes.

Once every core is busy, that says too little: two cores are two busy cores whether two processes share them or twenty.
Then those who compete for them are counted as well, as the scheduler does: with autogroups (sched(7)) each session is
one, and each of our commands has its own; without, each runnable process. `competitors` says how much that may cost.
"""

import bisect
import contextlib
import math
import os
import time

import psutil

from rakefarm.config import Emulation
from rakefarm.market.bid import Load
from rakefarm.process_tree import processor_seconds
from rakefarm.server.competitors import Competitors

PERIOD_S = 0.1
SMOOTHING_S = 0.15
"""Time constant of the average: one sample of 0.1 s counts in ticks of 10 ms, so it is 10 % wrong by itself."""
OWNER_PERIOD_S = 5.0
LOAD_AVERAGE_S = 60.0
"""The time constant of the first of the kernel's load averages, which an emulated machine imitates."""
SATURATED = 0.9
"""The share of busy cores from which on they are competed for."""


class Sampler:
    """Reads the load; keep one a server and call `sample` at its own rhythm, for the first time a period after it was
    made."""

    def __init__(self, emulation: Emulation | None = None) -> None:
        self._emulation = emulation or Emulation()
        self._pretended = PretendedLoad(self._emulation.load) if self._emulation.load else None
        self._process = psutil.Process()
        self._before = self._times()
        self._own_before = processor_seconds(self._process.pid)
        self._at = time.monotonic()
        self._sampled = False
        self._busy = self._own = 0.0
        self._io_wait = 0.0
        self._load_average = 0.0  # of an emulated machine
        self._competitors = Competitors()
        self._owner_idle_s = 1e9
        self._owner_asked = -OWNER_PERIOD_S

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

    def sample(self, running: int = 0) -> Load:
        """The load now: busy cores of the last few tenths of a second, memory as the kernel estimates it. An emulated
        machine is as busy as it says and as the `running` commands make it."""
        now = time.monotonic()
        times, own = self._times(), processor_seconds(self._process.pid)
        elapsed = max(now - self._at, 1e-3)
        cores = times[0]
        if cores == self._before[0]:
            # The first has nothing to be an average with; weighed like the others it would say that all is idle.
            share = min(1.0, elapsed / SMOOTHING_S) if self._sampled else 1.0
            self._sampled = True
            busy = min(cores, max(0.0, (times[1] - self._before[1]) / elapsed))
            waiting = min(1.0, max(0.0, (times[2] - self._before[2]) / elapsed / cores))
            self._busy += share * (busy - self._busy)
            # Never below zero: what a killed process had used is gone from the sum.
            self._own += share * (min(cores, max(0.0, (own - self._own_before) / elapsed)) - self._own)
            self._io_wait += share * (waiting - self._io_wait)
        self._before, self._own_before, self._at = times, own, now
        if now - self._owner_asked >= OWNER_PERIOD_S:
            self._owner_asked, self._owner_idle_s = now, owner_idle_s()
        memory = psutil.virtual_memory()
        others = max(0.0, self._busy - self._own)
        if self._busy > SATURATED * cores and not self._emulation.cores:
            others = max(others, self._competitors.count([self._process.pid], now))
        emulated = self._emulation
        if emulated.cores:
            busy_cores = self._pretended.at(now) if self._pretended else emulated.busy_cores
            runnable = busy_cores + running
            self._load_average += min(1.0, elapsed / LOAD_AVERAGE_S) * (runnable - self._load_average)
            return Load(
                emulated.cores,
                busy_cores,
                0.0,
                memory.available,
                memory.total,
                busy_in_all=min(float(emulated.cores), runnable),
                load_average=self._load_average,
            )
        return Load(
            cores,
            others,
            self._io_wait,
            memory.available,
            memory.total,
            owner_idle_s=self._owner_idle_s,
            busy_in_all=self._busy,
            load_average=os.getloadavg()[0],
        )


class PretendedLoad:
    """Cores that others keep busy on an emulated machine, by a file (see `Emulation`), which may be replaced. One that
    can't be read or has no line means none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._steps: list[tuple[float, float]] = []

    def at(self, now: float) -> float:
        """Cores, at that time of the monotonic clock."""
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(self._path)
            if (status.st_ino, status.st_mtime_ns) != self._stamp:
                with open(self._path, encoding="ascii") as file:
                    rows = [[float(word) for word in line.split()] for line in file]
                self._steps = [(time_s, cores) for time_s, cores in rows]
                self._stamp = status.st_ino, status.st_mtime_ns
        if not self._steps:
            return 0.0
        return self._steps[max(0, bisect.bisect_right(self._steps, (now, math.inf)) - 1)][1]


def owner_idle_s() -> float:
    """Seconds since somebody who sits at this machine touched it; very many when nobody does."""
    youngest = 1e9
    for user in psutil.users():
        if user.terminal and not user.host:
            with contextlib.suppress(OSError):
                youngest = min(youngest, max(0.0, time.time() - os.stat(f"/dev/{user.terminal}").st_atime))
    return youngest
