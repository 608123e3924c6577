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

from msgspec import Struct

from rakefarm.market.policy import Job

OVERDUE_FACTOR = 1.5
OVERDUE_S = 0.5
WORTH_SHARE = 0.5
"""A copy is worth it that takes less than this share of the time already spent."""
LARGEST_SHARE = 0.1
"""Copies among all awards, rounded up: the first copy is always allowed."""


class Run(Struct):
    """A job on a host: since when (seconds of the view's clock), what was bid then (seconds), and the share of the bid
    that is sending; `work_s` is its work at a whole core's rate (reference seconds), 0 when that is a guess."""

    job: Job
    host: str
    since_s: float
    bid_s: float
    sending_s: float
    work_s: float
    is_settled: bool = False  # it has ended, or is about to be stopped

    @property
    def overdue_at_s(self) -> float:
        """When it has taken so long that a copy is thought of."""
        return self.since_s + OVERDUE_FACTOR * self.bid_s + OVERDUE_S

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

    def end(self, job: Job, host: str) -> Run | None:
        """It runs there no more; answers what is known of it."""
        copies = self._runs.get(job.number, {})
        run = copies.pop(host, None)
        if not copies:
            self._runs.pop(job.number, None)
        return run

    def settle(self, job: Job) -> None:
        """A copy of it was first: whatever still runs of it is about to end, and gets no copy any more."""
        for run in self._runs.get(job.number, {}).values():
            run.is_settled = True

    def forget(self) -> None:
        """A new set begins, and nothing runs."""
        self._runs.clear()

    def is_running(self, job: Job) -> bool:
        """Whether it runs anywhere."""
        return job.number in self._runs

    def by_host(self) -> dict[str, list[Run]]:
        """What runs at each host."""
        found: dict[str, list[Run]] = {}
        for copies in self._runs.values():
            for host, run in copies.items():
                found.setdefault(host, []).append(run)
        return found

    def overdue(self, now_s: float) -> list[Run]:
        """What may have a copy, as far as it is worth it: what was overdue first comes first."""
        found = [run for run in self._candidates() if run.overdue_at_s <= now_s]
        return sorted(found, key=lambda run: run.overdue_at_s)

    def next_overdue_s(self, now_s: float) -> float:
        """When the next will be overdue (seconds of the view's clock), or infinity."""
        return min([run.overdue_at_s for run in self._candidates() if run.overdue_at_s > now_s], default=math.inf)

    def _candidates(self) -> list[Run]:
        if not self._allowed or self._copies >= math.ceil(LARGEST_SHARE * self._awards):
            return []
        alone = [next(iter(copies.values())) for copies in self._runs.values() if len(copies) == 1]
        return [run for run in alone if run.job.repeatable and not run.is_settled]
