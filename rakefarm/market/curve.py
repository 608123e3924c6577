"""The price curve: what a server says of itself, so that a client can predict any number of actions there.

A command that shares the machine with others runs at

    rate(k) = speed × min(1, cores / (k + b))

where k commands of the farm and b busy cores of other users share `cores` processors fairly, as the Linux scheduler
shares them among runnable processes of equal weight (sched(7), CFS and EEVDF). Where all cores are busy, b is how many
of other users compete for them. A job of w reference seconds (its time
alone on a processor of speed 1) so takes w / rate(k).
"""

import heapq
from collections.abc import Sequence

from msgspec import Struct

LONGEST_LIST = 64
"""Slots whose times a curve names; a machine with more has always one soon."""
LEAST_S = 1e-3
"""No command that runs ends before now."""


class Curve(Struct, frozen=True):
    """One server, when it said so.

    `free_in_s` are seconds until each of its slots comes free, ascending, 0 for one that is free; at most LONGEST_LIST
    of them. `busy` are busy cores of other users, or their competitors where all are busy, `busy_in_all` busy cores of
    everyone, as last sampled. `running` are commands of
    the farm that run or are committed, `waiting` those that come before who asks now: clients that wait for a slot, and
    commands that this server does not know of in slots that it shares. `version` grows with each curve of a server;
    `valid_s` is how long it may be believed (seconds). For records and comparison only: the load average of the last
    minute, memory that is left (bytes), and how old the load sample was (seconds).
    """

    cores: int
    slots: int
    speed: float
    busy: float
    busy_in_all: float
    running: int
    waiting: int
    version: int
    valid_s: float
    free_in_s: tuple[float, ...]
    load_average: float = 0.0
    memory_available_bytes: int = 0
    sample_age_s: float = 0.0

    @property
    def free_slots(self) -> int:
        """Slots that a command could start in now; those that others wait for are not ours to take."""
        return self.free_in_s.count(0.0)


def rate(speed: float, cores: int, busy: float, commands: int) -> float:
    """Reference seconds of work that each of `commands` gets done in a second; above zero."""
    return speed * min(1.0, cores / max(commands + busy, 1e-9))


def expected_s(end_s: float) -> float:
    """When a command ends (seconds from now) that was expected to end then; below zero, it is overdue. Of what has
    taken longer than expected nobody knows how long it takes, and so it is given as long again as it is overdue: it may
    be nearly done, but who waits for a host that has hung waits in vain."""
    return max(abs(end_s), LEAST_S)


def free_times(slots: int, ends_in_s: Sequence[float], reserved: int, run_s: float) -> tuple[float, ...]:
    """When each slot comes free: `ends_in_s` are the expected ends of running commands (seconds from now, below zero
    for one that is overdue), `reserved` places are promised, each for a command of about `run_s`."""
    if not ends_in_s and not reserved:
        return (0.0,) * min(slots, LONGEST_LIST)
    busy = sorted([end if end > LEAST_S else expected_s(end) for end in ends_in_s])[:slots]
    times = [0.0] * (slots - len(busy)) + busy
    if not reserved:
        return tuple(times[:LONGEST_LIST])
    # Who was promised a place takes the first that comes free. The ascending list is a heap already.
    for _ in range(min(reserved, 4 * slots)):
        heapq.heapreplace(times, times[0] + run_s)
    return tuple(sorted(times)[:LONGEST_LIST])
