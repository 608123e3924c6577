"""The policy that makes the choices of a recorded build once more: what the model is held against.

Each host gets the actions that it had, in the order in which it had them, as many at one time as it had then; the first
of a set as long after the set began as it was. All other times are the model's. Pure.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

from rakefarm.lab.recorded_build import RecordedBuild, RecordedSet
from rakefarm.market.policy import (
    Award,
    Effect,
    Event,
    Finished,
    HostDown,
    HostUp,
    Job,
    Lost,
    Refused,
    SetStarted,
    View,
    WakeAt,
)


class Given(Struct, frozen=True):
    """Where an action went; how long after the beginning of its set (seconds) the first action went there, how many
    were there at one time at the most, and in which place it came."""

    host: str
    first_s: float
    together: int
    place: int


def choices_of(build: RecordedBuild) -> dict[int, Given]:
    """By the numbers that the actions have in the model, from 1 in order."""
    given: dict[int, Given] = {}
    number = 0
    for each in build.sets:
        first_s, together = _firsts(each), _together(each)
        order = sorted(range(len(each.actions)), key=lambda index: each.actions[index].awarded_s)
        places = {index: place for place, index in enumerate(order)}
        for index, action in enumerate(each.actions):
            number += 1
            given[number] = Given(action.host, first_s[action.host], together[action.host], places[index])
    return given


def _firsts(each: RecordedSet) -> dict[str, float]:
    first: dict[str, float] = {}
    for action in each.actions:
        first[action.host] = min(first.get(action.host, action.awarded_s), action.awarded_s)
    return {host: max(0.0, at_s - each.began_s) for host, at_s in first.items()}


def _together(each: RecordedSet) -> Counter[str]:
    most: Counter[str] = Counter()
    now: Counter[str] = Counter()
    # What ended at the moment of an award has made room for it.
    changes = [(action.ended_s, -1, action.host) for action in each.actions]
    changes += [(action.awarded_s, 1, action.host) for action in each.actions]
    for _, change, host in sorted(changes):
        now[host] += change
        most[host] = max(most[host], now[host])
    return Counter({host: max(1, count) for host, count in most.items()})


class RecordedChoices:
    """See the module's head."""

    def __init__(self, view: View, given: Mapping[int, Given]) -> None:
        self._view = view
        self._given = given
        self._waiting: dict[str, deque[Job]] = {}
        self._there: Counter[str] = Counter()
        self._most: dict[str, int] = {}
        self._due_s: dict[str, float] = {}
        self._up: set[str] = set()

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in what happened; answers what is to be done."""
        match event:
            case SetStarted(jobs, hosts):
                self._begin(jobs, [facts.name for facts in hosts])
            case Finished(job, host):
                self._there[host] -= 1
            case Refused(job, host) | Lost(job, host):
                self._there[host] -= 1
                self._waiting.setdefault(host, deque()).appendleft(job)
            case HostDown(host):
                self._up.discard(host)
            case HostUp(facts):
                self._up.add(facts.name)
        self._move()
        return self._award()

    def _begin(self, jobs: Sequence[Job], hosts: Sequence[str]) -> None:
        self._up = set(hosts)
        self._waiting.clear()
        self._there.clear()
        now = self._view.now()
        for job in sorted(jobs, key=lambda job: self._given[job.number].place):
            given = self._given[job.number]
            self._waiting.setdefault(given.host, deque()).append(job)
            self._most[given.host], self._due_s[given.host] = given.together, now + given.first_s

    def _move(self) -> None:
        """In the model a host may be lost before it has done what it did: the others take that."""
        for host in [host for host, jobs in self._waiting.items() if jobs and host not in self._up]:
            others = sorted(self._up)
            if others:
                least = min(others, key=lambda other: len(self._waiting.get(other, ())))
                self._waiting.setdefault(least, deque()).extend(self._waiting.pop(host))

    def _award(self) -> list[Effect]:
        effects: list[Effect] = []
        now = self._view.now()
        for host, jobs in self._waiting.items():
            if not jobs or host not in self._up:
                continue
            if now < self._due_s.get(host, now):
                effects.append(WakeAt(self._due_s[host]))
                continue
            while jobs and self._there[host] < self._most.get(host, 1):
                self._there[host] += 1
                effects.append(Award(jobs.popleft(), host, 1.0, 1.0, start_now=False))
        return effects
