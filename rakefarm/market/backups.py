"""Which running jobs are overdue, and how many of them may have a copy.

A host that is slow, hangs or has lied keeps a whole set waiting for the job that it has. A job that has run for longer
than 1.5 times its bid and half a second is overdue. It gets one copy, on another host, once that one is predicted to
take less than half the time that the job has taken already: who has waited twice as long as the remedy takes loses
little by taking it, and a job that was merely longer than predicted is left alone. The wait has to be in proportion, as
with speculative tasks in MapReduce (Dean, Ghemawat 2004, section 3.6; Zaharia et al. 2008), which measure progress
instead; a command has none to show. Only one job in ten has a copy, so that a farm that is slow throughout does not
run everything twice.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection
from itertools import islice, takewhile

from msgspec import Struct

from rakefarm.market.policy import Job

OVERDUE_FACTOR = 1.5
OVERDUE_S = 0.5
WORTH_SHARE = 0.5
"""A copy is worth it that takes less than this share of the time already spent."""
LARGEST_SHARE = 0.1
"""Copies among all awards, rounded up: the first copy is always allowed."""


class Run(Struct, eq=False):
    """A job on a host: since when (seconds of the view's clock), what was bid then (seconds), and the share of the bid
    that is sending; `work_s` is its work at a whole core's rate (reference seconds), 0 when that is a guess."""

    job: Job
    host: str
    since_s: float
    bid_s: float
    sending_s: float
    work_s: float
    overdue_at_s: float = 0.0
    """When it has taken so long that a copy is thought of."""

    def __post_init__(self) -> None:
        self.overdue_at_s = self.since_s + OVERDUE_FACTOR * self.bid_s + OVERDUE_S

    def elapsed_s(self, now_s: float) -> float:
        """How long it has taken."""
        return now_s - self.since_s

    def worth_at_s(self, copy_s: float) -> float:
        """When a copy that takes so long is worth it."""
        return max(self.overdue_at_s, self.since_s + copy_s / WORTH_SHARE)


class Backups:
    """What runs where. A job may run at two hosts."""

    def __init__(self, allowed: bool) -> None:
        """Without `allowed` nothing is ever overdue."""
        self._allowed = allowed
        self._runs: dict[int, dict[str, Run]] = {}
        self._there: dict[str, dict[int, Run]] = {}
        self._watched: list[Run] = []  # what may have a copy when it is alone, in the order of becoming overdue
        self._awards = 0
        self._copies = 0

    def begin(self, run: Run) -> None:
        """A job was awarded, or a copy of one that runs."""
        copies = self._runs.setdefault(run.job.number, {})
        if copies:
            self._copies += 1
        else:
            self._awards += 1
        copies[run.host] = run
        self._there.setdefault(run.host, {})[run.job.number] = run
        if self._allowed and run.job.repeatable:
            insort(self._watched, run, key=_overdue_at_s)

    def end(self, job: Job, host: str) -> Run | None:
        """It runs there no more; answers what is known of it."""
        copies = self._runs.get(job.number, {})
        run = copies.pop(host, None)
        if not copies:
            self._runs.pop(job.number, None)
        if run is not None:
            del self._there[host][job.number]
            self._unwatch(run)
        return run

    def settle(self, job: Job) -> None:
        """A copy of it was first: whatever still runs of it is about to end, and gets no copy any more."""
        for run in self._runs.get(job.number, {}).values():
            self._unwatch(run)

    def _unwatch(self, run: Run) -> None:
        index = bisect_left(self._watched, run.overdue_at_s, key=_overdue_at_s)
        while index < len(self._watched) and self._watched[index].overdue_at_s == run.overdue_at_s:
            if self._watched[index] is run:
                del self._watched[index]
                return
            index += 1

    def forget(self) -> None:
        """A new set begins, and nothing runs."""
        self._runs.clear()
        self._there.clear()
        self._watched.clear()

    def is_running(self, job: Job) -> bool:
        """Whether it runs anywhere."""
        return job.number in self._runs

    def at(self, host: str) -> Collection[Run]:
        """What runs at that host."""
        return self._there.get(host, {}).values()

    def overdue(self, now_s: float) -> list[Run]:
        """What may have a copy, as far as it is worth it: what was overdue first comes first."""
        if self._may_have_one_more:
            return [run for run in takewhile(lambda run: run.overdue_at_s <= now_s, self._watched) if self._is_alone(run)]
        return []

    def next_overdue_s(self, now_s: float) -> float:
        """When the next will be overdue (seconds of the view's clock), or infinity."""
        if self._may_have_one_more:
            index = bisect_right(self._watched, now_s, key=_overdue_at_s)
            for run in islice(self._watched, index, None):
                if self._is_alone(run):
                    return run.overdue_at_s
        return math.inf

    @property
    def _may_have_one_more(self) -> bool:
        return self._copies < math.ceil(LARGEST_SHARE * self._awards)

    def _is_alone(self, run: Run) -> bool:
        return len(self._runs.get(run.job.number, ())) == 1


def _overdue_at_s(run: Run) -> float:
    return run.overdue_at_s
