"""Who competes for a machine's cores: how many of other users the scheduler would let take turns with one of ours.

Looking through all processes takes milliseconds, so it is done only when somebody needs the number, at most four times
a second, and never for more than a fiftieth of a core.
"""

import contextlib
import os
from collections.abc import Sequence
from time import thread_time

PERIOD_S = 0.25
SHARE = 0.02
NEWEST = 0.5
"""What the newest look counts in the average: who waits for a disk at that moment competes no less."""
FORGET_S = 2.0
"""An average that is older than this says nothing any more."""


def stat_fields(pid: int) -> list[bytes]:
    """What proc(5) says of a process, from its third field on: after the name, which may hold anything. Raises OSError
    when it is gone."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def has_autogroups() -> bool:
    """Whether the scheduler shares among sessions first."""
    try:
        with open("/proc/sys/kernel/sched_autogroup_enabled", "rb") as file:
            return file.read().strip() == b"1"
    except OSError:
        return False


class Competitors:
    """Counts them, now and then."""

    def __init__(self) -> None:
        self._by_session = has_autogroups()
        self._average = 0.0
        self._looked_at = -FORGET_S
        self._next_at = 0.0

    def count(self, ours: Sequence[int], now: float) -> float:
        """How many there are that do not descend from `ours`, smoothed; `now` in monotonic seconds."""
        if now >= self._next_at:
            began = thread_time()
            found = float(competing(processes(), ours, self._by_session))
            share = NEWEST if now - self._looked_at < FORGET_S else 1.0
            self._average += share * (found - self._average)
            self._looked_at = now
            self._next_at = now + max(PERIOD_S, (thread_time() - began) / SHARE)
        return self._average


Processes = dict[int, tuple[bytes, int, int]]
"""State, parent and session, by process."""


def processes() -> Processes:
    """All that are there now."""
    found: Processes = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, parent, _, session = stat_fields(int(name))[:4]
                found[int(name)] = state, int(parent), int(session)
    return found


def competing(there: Processes, ours: Sequence[int], by_session: bool) -> int:
    """The runnable processes that do not descend from `ours`, or the sessions that have such."""
    sessions = [
        session for pid, (state, _, session) in there.items() if state == b"R" and not _descends(pid, ours, there)
    ]
    return len(set(sessions)) if by_session else len(sessions)


def _descends(pid: int, ours: Sequence[int], there: Processes) -> bool:
    seen = set()
    while pid not in ours:
        if pid in seen or pid not in there:
            return False
        seen.add(pid)
        pid = there[pid][1]
    return True
