"""Which running jobs are overdue, and how many of them may have a copy.

A host that is slow, hangs or has lied keeps a whole set waiting for the job that it has. A job that has run for longer
than 1.5 times its bid and half a second is overdue. It gets one copy, on another host, once that one is predicted to
take less than half the time that the job has taken already: who has waited twice as long as the remedy takes loses
little by taking it, and a job that was merely longer than predicted is left alone. The wait has to be in proportion, as
with speculative tasks in MapReduce (Dean, Ghemawat 2004, section 3.6; Zaharia et al. 2008), which measure progress
instead; a command has none to show. Only one job in ten has a copy, so that a farm that is slow throughout does not
run everything twice.

Two things make a copy worth it earlier. When no job is left that waits, slots are idle: the jobs that are expected to
end last, and that would end sooner elsewhere even from the beginning, get copies there, as straggler cloning does
(Ananthanarayanan et al., "Effective Straggler Mitigation: Attack of the Clones", NSDI 2013). And when a host has shown
that it is 1.5 times slower than was believed when a job was awarded to it, that job is not waited for, however many
copies there are: it is the host that is slow, not the farm.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Mapping
from itertools import islice

from msgspec import Struct

from rakefarm.market.policy import Job

OVERDUE_FACTOR = 1.5
OVERDUE_S = 0.5
WORTH_SHARE = 0.5
"""A copy is worth it that takes less than this share of the time already spent."""
LATE_FACTOR, LATE_S = 1.25, 0.25
"""What has run for longer than this is expected to run for as long again."""
MOMENT_S = 1e-3
LOOK_SHARE = 0.1
"""It is looked at again whenever it has run for so much longer."""
LEFT_SHARE = 0.3
"""What has not is expected to need this share of its bid, at the least: predictions are no better."""
IDLE_SHARE = 0.8
"""Where slots are idle, a copy is worth it that takes less than this share of what is left."""
CRITICAL_SHARE = 0.6
"""And has as much to gain as this, of what the job has that can gain most: the others don't end last."""
DOUBTED_FACTOR = 1.5
"""A host that has turned out so many times slower than was believed is not waited for."""
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
    speed: float = 1.0
    """What the host was believed to be when the job was awarded."""
    overdue_at_s: float = 0.0
    """When it has taken so long that a copy is thought of."""

    def __post_init__(self) -> None:
        self.overdue_at_s = self.since_s + OVERDUE_FACTOR * self.bid_s + OVERDUE_S

    def elapsed_s(self, now_s: float) -> float:
        """How long it has taken."""
        return now_s - self.since_s

    def next_look_s(self, now_s: float) -> float:
        """When it will be late; and from then on again and again, since its host is doubted the more."""
        late_s = self.since_s + LATE_FACTOR * self.bid_s + LATE_S + MOMENT_S
        return late_s if late_s > now_s else now_s + LOOK_SHARE * self.elapsed_s(now_s)

    def left_s(self, now_s: float, slowness: float) -> float:
        """How much longer it is expected to take, at a host that is so many times slower than was believed."""
        elapsed_s = self.elapsed_s(now_s)
        whole_s = self.sending_s + (self.bid_s - self.sending_s) * slowness
        if elapsed_s > LATE_FACTOR * whole_s + LATE_S:
            return elapsed_s
        return max(whole_s - elapsed_s, LEFT_SHARE * whole_s)

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

    def worth(self, now_s: float, idle: bool, speeds: Mapping[str, float]) -> list[tuple[Run, float]]:
        """What may have a copy, and how many seconds that may take at the most: what has most to gain first. `idle`: no
        job waits for a slot; `speeds` are what hosts are believed to be now."""
        found = []
        may_have_one_more = self._may_have_one_more
        for run in self._watched if idle else self._late_or_doubted(now_s, speeds):
            slowness = run.speed / speeds.get(run.host, run.speed)
            doubted = slowness >= DOUBTED_FACTOR
            if not (doubted or may_have_one_more) or not self._is_alone(run):
                continue
            most_s = 0.0
            if doubted or idle:
                most_s = IDLE_SHARE * run.left_s(now_s, slowness if doubted else 1.0)
            if run.overdue_at_s <= now_s:
                most_s = max(most_s, WORTH_SHARE * run.elapsed_s(now_s))
            found.append((run, most_s))
        if not idle:
            return found
        found.sort(key=lambda pair: -pair[1])
        least_s = CRITICAL_SHARE * found[0][1] if found else 0.0
        return [(run, most_s) for run, most_s in found if most_s >= least_s or run.overdue_at_s <= now_s]

    def _late_or_doubted(self, now_s: float, speeds: Mapping[str, float]) -> list[Run]:
        return [
            run
            for run in self._watched
            if run.overdue_at_s <= now_s or run.speed >= DOUBTED_FACTOR * speeds.get(run.host, run.speed)
        ]

    def next_look_s(self, now_s: float, idle: bool) -> float:
        """When time alone will next make a copy worth more (seconds of the view's clock), or infinity."""
        if not idle:
            return self.next_overdue_s(now_s)
        return min([run.next_look_s(now_s) for run in self._watched if self._is_alone(run)], default=math.inf)

    def next_overdue_s(self, now_s: float) -> float:
        """When the next will be overdue (seconds of the view's clock), or infinity."""
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
