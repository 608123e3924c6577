"""Where a conversation's prices come from: the market's pure functions, fed with what is known here and now."""

import os
import platform
import time

from msgspec import Struct, structs

from rakefarm.hours import is_within, parse_hours
from rakefarm.market.bid import (
    Bid,
    Commitments,
    Job,
    Load,
    Standing,
    bid,
    curve_of,
    expected_run,
    refuse,
    share_of,
)
from rakefarm.market.curve import Curve
from rakefarm.market.needs import Facilities, Refusal, parse_licenses
from rakefarm.server.bid_guard import BidGuard
from rakefarm.server.workplace import Workplace
from rakefarm.wire.messages import Task

ARCHITECTURE = platform.machine()


def job_of(task: Task) -> Job:
    """The market's view of what a client asks for."""
    needs = tuple([(need.key, need.value) for need in task.needs])
    return Job(task.kind, needs, task.input_bytes, max(task.work_s, 0.0), task.memory_bytes)


def licenses_of(task: Task) -> tuple[str, ...]:
    """The licences that an action must hold, each once."""
    return tuple(dict.fromkeys(need.value for need in task.needs if need.key == "license"))


class Sight(Struct, frozen=True):
    """One look at the scoreboard: the load, and what is promised, at this moment (monotonic seconds)."""

    load: Load
    promised: Commitments
    at: float


class Desk:
    """Prices for one worker's conversations. For any thread. One look serves all that is to be known of a moment."""

    def __init__(self, workplace: Workplace) -> None:
        self._work = workplace
        self._board = workplace.board.scoreboard
        self._price = workplace.settings.price
        self._licenses = frozenset(parse_licenses(workplace.settings.licenses))
        self._terms_of = BidGuard(workplace.settings.bid, self._board)
        self._quiet = parse_hours(workplace.settings.quiet_hours)

    def look(self) -> Sight:
        """How it stands now."""
        return Sight(self._board.load(), self._promised(), time.monotonic())

    def price(self, task: Task, leased: int = 0) -> Bid | Refusal:
        """What it costs now, or why it can't be had at all; so many of the slots that are leased are for this very
        task."""
        job, seen = job_of(task), self.look()
        promised = seen.promised
        if leased:
            promised = structs.replace(promised, leased=max(0, promised.leased - leased))
        standing = self._standing()
        facilities = self._facilities(job, seen.load)
        return bid(job, seen.load, promised, facilities, self._price, standing, self._terms_of)

    def refusal(self, job: Job, seen: Sight) -> Refusal | None:
        """Why the job can't be taken at any price, or None. Being full is no reason."""
        return refuse(job, seen.load, self._facilities(job, seen.load), self._price)

    def curve(self, job: Job, seen: Sight) -> Curve:
        """The curve of that moment, for jobs like this one."""
        return curve_of(seen.load, seen.promised, self._standing(), self.expect(job, seen)[0])

    def expect(self, job: Job, seen: Sight) -> tuple[float, float]:
        """How long one more such job is expected to run (seconds), and what share of a core it gets."""
        return expected_run(job, seen.load, seen.promised, self._board.speed, self._price)

    def share(self, job: Job, seen: Sight) -> float:
        """What share of a core it gets beside the commands that run."""
        return share_of(job, seen.load, seen.promised.running)

    def _promised(self) -> Commitments:
        promised = self._board.commitments()
        elsewhere = self._work.grants.elsewhere(promised.running + promised.leased)
        return structs.replace(promised, elsewhere=elsewhere) if elsewhere else promised

    def _standing(self) -> Standing:
        return Standing(
            speed=self._board.speed,
            faults=self._board.faults(self._price.fault_half_life_s),
            quiet=self._quiet is not None and is_within(self._quiet, time.localtime()),
            version=time.monotonic_ns() // 1000,
        )

    def _facilities(self, job: Job, load: Load) -> Facilities:
        return Facilities(
            cores=load.cores,
            memory_available=load.memory_available,
            disk_free=_free_bytes(self._work.sandbox.path) if job.input_bytes else 1 << 62,
            tools=self._tools(job) if job.needs else frozenset(),
            files=frozenset(
                [value for key, value in job.needs if key == "file" and self._work.likeness.has_file(value)]
            ),
            licenses=self._licenses,
            architecture=ARCHITECTURE,
            draining=self._board.draining,
        )

    def _tools(self, job: Job) -> frozenset[str]:
        path = self._work.settings.path
        return frozenset([value for key, value in job.needs if key == "tool" and has_tool(value, path)])


def _free_bytes(path: bytes) -> int:
    """Of the disk that `path` is on; none for one that is gone: the next server removes what a killed one has left,
    whose workers may still be ending."""
    try:
        status = os.statvfs(path)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


def has_tool(name: str, search: str) -> bool:
    """Whether a program of this name is on the search path."""
    if not name or {"/", "\0"} & set(name):
        return False
    return any(os.access(os.path.join(directory, name), os.X_OK) for directory in search.split(":"))
