"""What an award policy is: events in, effects out, and nothing else.

    SetStarted, Quoted, Declined, Refused, SlotFree, Finished, Superseded, Lost, Withdrawn, HostUp, HostDown, Woken
    Ask, Award, BackUp, Wait, WakeAt

The first are what happened, the second what shall be done.

A policy decides which host gets which action, and when. It sees the world only through these events and through the
`View` that it is made with: time and randomness come from there, so the same object runs in a client against real
servers and in a simulator against imagined ones. It holds no lock and does no I/O; its caller sees to both.

Whoever runs a policy promises: events come one at a time; every Award and every BackUp is answered by exactly one of
Finished, Superseded, Refused and Lost for that action and host, and of several copies of an action one at the most has
Finished; a Quoted or Declined comes for every host that was asked, unless the host is down.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from rakefarm.market.curve import Curve


class Job(Struct, frozen=True):
    """An action, as the market sees it. `work_s` is what it is expected to take on a core of speed 1 (seconds), `task`
    whatever makes quotes comparable: jobs with an equal one get equal answers but for their work. `needs` is what a
    host holds for it beside a slot: jobs with equal ones may use a slot that is held for another. `repeatable`: it may
    run twice at one time; `known`: its work was seen before, and is no guess."""

    number: int
    work_s: float
    task: object = None
    needs: object = None
    repeatable: bool = False
    known: bool = False


class HostFacts(Struct, frozen=True):
    """What a host said when it was met: its name, its slots and cores."""

    name: str
    slots: int
    cores: int


# --- events ---------------------------------------------------------------------------------------------


class Event(Struct, frozen=True):
    """Something that happened."""


class SetStarted(Event, frozen=True):
    """These jobs may start now, all of them; `hosts` may be asked."""

    jobs: tuple[Job, ...]
    hosts: tuple[HostFacts, ...]


class Quoted(Event, frozen=True):
    """A host's answer to Ask: price, seconds, and its curve."""

    job: Job
    host: str
    price: float
    seconds: float
    curve: Curve


class Declined(Event, frozen=True):
    """A host's answer to Ask or to an Award: it can't or won't run the job, for longer than a moment if `lasting`."""

    job: Job
    host: str
    lasting: bool


class Refused(Event, frozen=True):
    """An Award came to nothing because the host is full, or, when `lacking`, because others hold what the job needs
    there (a licence, say), which is nothing to other jobs."""

    job: Job
    host: str
    curve: Curve
    lacking: bool = False


class SlotFree(Event, frozen=True):
    """The answer to Wait: a slot is held for us there, for one Award among the effects that answer this event, of the
    job that Wait named or another with the same needs. If there is none, the slot is given up. `curve` has it as free.
    """

    host: str
    curve: Curve
    job: Job


class Finished(Event, frozen=True):
    """A job has come to its end there, however; `seconds` is how long it took, sending included."""

    job: Job
    host: str
    seconds: float
    curve: Curve | None
    succeeded: bool = True


class Superseded(Event, frozen=True):
    """What ran of a job there has been stopped, since a copy of it came to its end elsewhere first."""

    job: Job
    host: str


class Lost(Event, frozen=True):
    """A job was lost there, or the host took its award back: unless a copy of it runs, it must be awarded again,
    elsewhere if that can be."""

    job: Job
    host: str


class Withdrawn(Event, frozen=True):
    """A job is no longer to be awarded: no host will ever run it."""

    job: Job


class HostUp(Event, frozen=True):
    """A host may be asked again."""

    host: HostFacts


class HostDown(Event, frozen=True):
    """A host can't be used for now. What ran there is told as Lost."""

    host: str


class Woken(Event, frozen=True):
    """The time of a WakeAt has come."""


# --- effects --------------------------------------------------------------------------------------------


class Effect(Struct, frozen=True):
    """Something to be done."""


class Ask(Effect, frozen=True):
    """Ask these hosts for a quote."""

    job: Job
    hosts: tuple[str, ...]


class Award(Effect, frozen=True):
    """Send the job to the host. With `start_now` it is refused when the host is full, else it waits there. `runner_up`
    would have been the next best, at `runner_up_price`; empty when no other came into question. The slownesses are what
    was added to the two prices since that host has been slower than it says."""

    job: Job
    host: str
    price: float
    seconds: float
    start_now: bool = True
    runner_up: str = ""
    runner_up_price: float | None = None
    slowness: float = 0.0
    runner_up_slowness: float = 0.0


class BackUp(Award, frozen=True):
    """Send a copy of a repeatable job that runs elsewhere to the host. The first that comes to an end is the job, the
    other is stopped."""


class Wait(Effect, frozen=True):
    """Have the host tell when a slot is free, for a job like this. Each Wait is a place in its queue, answered once, by
    SlotFree or Declined."""

    host: str
    job: Job


class WakeAt(Effect, frozen=True):
    """Send Woken at this time (seconds of the view's clock)."""

    time_s: float


class View(Protocol):
    """The world of a policy, beyond its events."""

    def now(self) -> float:
        """The time in seconds, of a clock that never goes back."""

    def random(self) -> float:
        """A random number, 0 ≤ x < 1."""

    def transfer_s(self, job: Job, host: str) -> float:
        """Seconds that sending the job's inputs to the host would take, as far as is known."""

    def overhead_s(self, host: str) -> float:
        """Seconds that an action there takes beyond its command and the sending of files, as far as is known: round
        trips, and the work of client and host."""


class Policy(Protocol):
    """Decides. Made anew for each build; `handle` takes less than a millisecond."""

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in what happened; answers what is to be done."""
