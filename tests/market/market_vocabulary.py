"""The words that tests of policies are written in: curves by hand, and a small world of hosts in virtual time.

The world keeps the promises of `rakefarm.market.policy` and checks the policy's side of them: what is awarded is
pending, and a slot is used that is held or free. Without `latency_s` nothing comes between an event and its effects.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from rakefarm.market import bid as pricing
from rakefarm.market.bid import Bid, Commitments, Load, Standing, curve_of
from rakefarm.market.curve import Curve, rate
from rakefarm.market.needs import Facilities
from rakefarm.market.policy import (
    Ask,
    Award,
    BackUp,
    Declined,
    Effect,
    Event,
    Finished,
    HostDown,
    HostFacts,
    HostUp,
    Job,
    Lost,
    Policy,
    Quoted,
    Refused,
    SetStarted,
    SlotFree,
    Superseded,
    View,
    Wait,
    WakeAt,
    Woken,
)

MakePolicy = Callable[[View], Policy]
K = pricing.Coefficients()


def curve(*free_in_s: float, speed: float = 1.0, busy: float = 0.0, running: int = 0, **more: int) -> Curve:
    """A curve with these times, one a slot and a core."""
    fields = {"cores": len(free_in_s), "slots": len(free_in_s), "waiting": 0, "version": 1, **more}
    return Curve(speed=speed, busy=busy, busy_in_all=busy, running=running, valid_s=1.0, free_in_s=free_in_s, **fields)


def facts(*names: str, slots: int = 1) -> tuple[HostFacts, ...]:
    """Hosts as they were met."""
    return tuple([HostFacts(name, slots, slots) for name in names])


def make_jobs(*works: float, task: object = "task", repeatable: bool = False, known: bool = False) -> tuple[Job, ...]:
    """Jobs numbered from 0 that take so many reference seconds."""
    return tuple([Job(number, work_s, task, repeatable=repeatable, known=known) for number, work_s in enumerate(works)])


class HandView:
    """A view whose time and chance the test sets."""

    def __init__(self) -> None:
        self.time_s = 100.0
        self.chances: deque[float] = deque()
        self.transfers: dict[str, float] = {}
        self.overheads: dict[str, float] = {}

    def now(self) -> float:
        return self.time_s

    def random(self) -> float:
        return self.chances.popleft() if self.chances else 0.0

    def transfer_s(self, job: Job, host: str) -> float:
        return self.transfers.get(host, 0.0)

    def overhead_s(self, host: str) -> float:
        return self.overheads.get(host, 0.0)


def of_kind(effects: Iterable[Effect], kind: type[Effect]) -> list[Effect]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def awards_of(effects: Iterable[Effect]) -> list[tuple[int, str]]:
    """Which job was awarded to which host."""
    return [(effect.job.number, effect.host) for effect in effects if type(effect) is Award]


def backups_of(effects: Iterable[Effect]) -> list[tuple[int, str]]:
    """Which job got a copy at which host."""
    return [(effect.job.number, effect.host) for effect in effects if isinstance(effect, BackUp)]


def wakes_of(effects: Iterable[Effect]) -> list[float]:
    """When the policy wants to be woken."""
    return [effect.time_s for effect in effects if isinstance(effect, WakeAt)]


def waits_of(effects: Iterable[Effect]) -> list[str]:
    """The hosts that the policy waits at."""
    return [effect.host for effect in effects if isinstance(effect, Wait)]


def asks_of(effects: Iterable[Effect]) -> list[tuple[int, tuple[str, ...]]]:
    """Which hosts were asked for which job."""
    return [(effect.job.number, effect.hosts) for effect in effects if isinstance(effect, Ask)]


# --- a world ----------------------------------------------------------------------------------------------


@dataclass
class Place:
    """Something that a host does or has promised: whose, and what."""

    client: "Client"
    job: Job
    ends_s: float = 0.0
    began_s: float = 0.0


@dataclass
class Host:
    """An imagined server: as many cores as slots, waiting clients served in turn."""

    world: "World"
    name: str
    slots: int
    speed: float = 1.0
    true_speed: float = 0.0  # 0: as it says
    running: list[Place] = field(default_factory=list)
    queued: deque[Place] = field(default_factory=deque)  # awards that may wait
    waiters: deque[Place] = field(default_factory=deque)
    leases: list["Client"] = field(default_factory=list)
    loses: set[int] = field(default_factory=set)  # jobs that are lost here, at once
    declines: Mapping[object, bool] = field(default_factory=dict)  # by task, whether for good
    down: bool = False
    version: int = 0
    most_running: int = 0

    @property
    def taken(self) -> int:
        return len(self.running) + len(self.leases)

    def promised(self, held: int = 0) -> Commitments:
        """What is promised to others than who is told of so many slots that are held for it."""
        ends = tuple(sorted(place.ends_s - self.world.now_s for place in self.running))
        waiting = len(self.queued) + len(self.waiters)
        return Commitments(self.slots, len(self.running), waiting, len(self.leases) - held, ends)

    def load(self) -> Load:
        return Load(self.slots, 0.0, 0.0, 1 << 40, 1 << 40, busy_in_all=float(len(self.running)))

    def standing(self) -> Standing:
        self.version += 1
        return Standing(self.speed, version=self.version)

    def curve(self, job: Job, held: int = 0) -> Curve:
        promised = self.promised(held)
        commands = len(self.running) + 1
        return curve_of(self.load(), promised, self.standing(), job.work_s / rate(self.speed, self.slots, 0, commands))

    def quote(self, client: "Client", job: Job) -> None:
        if job.task in self.declines:
            client.tell(Declined(job, self.name, self.declines[job.task]))
            return
        asked = pricing.Job("other", work_s=job.work_s)
        answer = pricing.bid(asked, self.load(), self.promised(), Facilities(), K, self.standing())
        assert isinstance(answer, Bid)
        client.tell(Quoted(job, self.name, answer.price, answer.seconds, answer.curve))

    def wait(self, client: "Client", job: Job) -> None:
        if job.task in self.declines:
            client.tell(Declined(job, self.name, self.declines[job.task]))
            return
        self.waiters.append(Place(client, job))
        self.serve()

    def execute(self, client: "Client", job: Job, leased: bool, start_now: bool) -> None:
        if leased:
            self.leases.remove(client)
        elif start_now and (self.taken >= self.slots or self.waiters or self.queued):
            client.refused += 1
            client.tell(Refused(job, self.name, self.curve(job)))
            return
        if job.number in self.loses:
            self.loses.discard(job.number)
            client.tell(Lost(job, self.name))
        elif self.taken < self.slots:
            self.start(client, job)
            return
        else:
            self.queued.append(Place(client, job))
        self.serve()

    def start(self, client: "Client", job: Job) -> None:
        place = Place(client, job, self.world.now_s + job.work_s / self.speed, self.world.now_s)
        self.running.append(place)
        self.most_running = max(self.most_running, len(self.running))
        took_s = job.work_s / (self.true_speed or self.speed)
        self.world.at(self.world.now_s + took_s, lambda: self.end(place))

    def end(self, place: Place) -> None:
        if place not in self.running:
            return  # went down meanwhile
        self.running.remove(place)
        self.serve()
        event = Finished(place.job, self.name, self.world.now_s - place.began_s, self.curve(place.job))
        if self.world.latency_s:
            self.world.after(self.world.latency_s, lambda: place.client.won(event))
        else:
            place.client.won(event)

    def stop(self, client: "Client", job: Job) -> None:
        """The client has closed the connection, wherever the job was."""
        mine = [place for place in self.running if place.client is client and place.job is job]
        self.running = [place for place in self.running if place not in mine]
        self.queued = deque(place for place in self.queued if not (place.client is client and place.job is job))
        self.serve()

    def serve(self) -> None:
        while self.taken < self.slots and (self.queued or self.waiters):
            if self.queued:
                place = self.queued.popleft()
                self.start(place.client, place.job)
            else:
                place = self.waiters.popleft()
                self.leases.append(place.client)
                self.grant(place)

    def grant(self, place: Place) -> None:
        client = place.client

        def use() -> None:
            free = SlotFree(self.name, self.curve(place.job, held=1), place.job)
            if client in self.leases and not client.tell_now(free):
                self.leases.remove(client)
                self.serve()

        self.world.after(self.world.latency_s, use)

    def go_down(self) -> None:
        """Everything here is lost."""
        self.down = True
        gone = [*self.running, *self.queued]
        clients = self.world.clients
        self.running, self.queued, self.waiters, self.leases = [], deque(), deque(), []
        for client in clients:
            client.tell(HostDown(self.name))
        for place in gone:
            place.client.tell(Lost(place.job, self.name))

    def come_up(self) -> None:
        self.down = False
        for client in self.world.clients:
            client.tell(HostUp(HostFacts(self.name, self.slots, self.slots)))


@dataclass
class Client:
    """One build's policy, and what has come of its jobs."""

    world: "World"
    number: int
    policy: Policy = field(init=False)
    unfinished: dict[int, Job] = field(default_factory=dict)
    flying: dict[int, set[str]] = field(default_factory=dict)
    copies: list[tuple[int, str]] = field(default_factory=list)
    awards: list[tuple[int, str]] = field(default_factory=list)
    causes: list[tuple[Event, Award]] = field(default_factory=list)
    refused: int = 0
    messages: int = 0
    ended_s: float = 0.0

    def now(self) -> float:
        return self.world.now_s

    def random(self) -> float:
        return self.world.random.random()

    def transfer_s(self, job: Job, host: str) -> float:
        return 0.0

    def overhead_s(self, host: str) -> float:
        return 0.0

    def start_set(self, jobs: Sequence[Job]) -> None:
        assert not self.unfinished
        self.unfinished = {job.number: job for job in jobs}
        known = tuple([HostFacts(host.name, host.slots, host.slots) for host in self.world.up()])
        self.tell_now(SetStarted(tuple(jobs), known))

    def tell(self, event: Event) -> None:
        self.world.after(self.world.latency_s, lambda: self.tell_now(event))

    def tell_now(self, event: Event) -> bool:
        """Answers whether a slot that is told of was used."""
        match event:
            case Finished(job):
                self.leave(job, event.host)
                del self.unfinished[job.number]
                self.ended_s = self.world.now_s
            case Refused(job, host) | Lost(job, host) | Superseded(job, host):
                if not self.leave(job, host):
                    return False  # it has been superseded meanwhile
        return self.do(event, self.policy.handle(event))

    def do(self, event: Event, effects: Iterable[Effect]) -> bool:
        """Carry out the effects; answers whether a slot that is told of was used."""
        used = False
        held = event.host if isinstance(event, SlotFree) else ""
        for effect in effects:
            match effect:
                case BackUp(job, host):
                    used = used or host == held
                    self.back_up(effect, leased=host == held)
                    held = "" if host == held else held
                case Award(job, host):
                    used = used or host == held
                    self.award(event, effect, leased=host == held)
                    held = "" if host == held else held
                case Ask(job, hosts):
                    for host in hosts:
                        self.send(host, lambda there, job=job: there.quote(self, job))
                case Wait(host, job):
                    self.send(host, lambda there, job=job: there.wait(self, job))
                case WakeAt(time_s):
                    self.world.at(max(time_s, self.world.now_s + 1e-9), lambda: self.wake())
        return used

    def wake(self) -> None:
        if self.unfinished:
            self.tell_now(Woken())

    def award(self, cause: Event, award: Award, leased: bool) -> None:
        number = award.job.number
        assert number in self.unfinished and number not in self.flying, f"{number} is not pending"
        assert award.price > 0 and award.seconds > 0
        self.flying[number] = {award.host}
        self.awards.append((number, award.host))
        self.causes.append((cause, award))
        host = self.world.hosts[award.host]
        if host.down:
            self.tell(Lost(award.job, award.host))
            return
        self.send(award.host, lambda there: there.execute(self, award.job, leased, award.start_now))

    def back_up(self, copy: BackUp, leased: bool) -> None:
        number = copy.job.number
        assert copy.job.repeatable
        assert len(self.flying[number]) == 1 and copy.host not in self.flying[number], f"{number} can't have a copy"
        assert copy.price > 0 and copy.seconds > 0
        self.flying[number].add(copy.host)
        self.copies.append((number, copy.host))
        if self.world.hosts[copy.host].down:
            self.tell(Lost(copy.job, copy.host))
            return
        self.send(copy.host, lambda there: there.execute(self, copy.job, leased, True))

    def won(self, event: Finished) -> None:
        """The first copy that ends is the job: the other is stopped."""
        number = event.job.number
        if event.host not in self.flying.get(number, ()):
            return
        for host in self.flying[number] - {event.host}:
            self.send(host, lambda there, host=host: self.stop(there, event.job))
        self.flying[number] = {event.host}
        self.tell_now(event)

    def stop(self, host: Host, job: Job) -> None:
        host.stop(self, job)
        self.world.after(self.world.latency_s, lambda: self.policy_told(Superseded(job, host.name)))

    def policy_told(self, event: Superseded) -> None:
        effects = self.policy.handle(event)
        if self.unfinished:
            self.do(event, effects)

    def leave(self, job: Job, host: str) -> bool:
        hosts = self.flying.get(job.number, set())
        there = host in hosts
        hosts.discard(host)
        if not hosts:
            self.flying.pop(job.number, None)
        return there

    def send(self, host: str, what: Callable[[Host], None]) -> None:
        self.messages += 1

        def arrive() -> None:
            there = self.world.hosts[host]
            if not there.down:
                what(there)

        if self.world.latency_s:
            self.world.after(self.world.latency_s, arrive)
        else:
            arrive()


class World:
    """Hosts (slots and speed by name), clients that all have one policy, and the time."""

    def __init__(
        self,
        make_policy: MakePolicy,
        hosts: Mapping[str, tuple[int, float]],
        clients: int = 1,
        latency_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.now_s = 0.0
        self.latency_s = latency_s
        self.random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self.hosts = {name: Host(self, name, slots, speed) for name, (slots, speed) in hosts.items()}
        self.clients = [Client(self, number) for number in range(clients)]
        for client in self.clients:
            client.policy = make_policy(client)

    def up(self) -> list[Host]:
        return [host for host in self.hosts.values() if not host.down]

    def at(self, time_s: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._events, (time_s, next(self._numbers), what))

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        self.at(self.now_s + seconds, what)

    def run(self, *sets: Sequence[Job], until_s: float = 1e5) -> float:
        """Have every client perform a set each, the last set for who is left over; answers how long it took."""
        began = self.now_s
        for index, client in enumerate(self.clients):
            jobs = sets[min(index, len(sets) - 1)]
            self.after(0.0, lambda client=client, jobs=jobs: client.start_set(jobs))  # type: ignore[misc]
        while self._events:
            time_s, _, what = heapq.heappop(self._events)
            assert time_s < until_s, f"unfinished: {[list(client.unfinished) for client in self.clients]}"
            self.now_s = max(self.now_s, time_s)
            what()
            if not self._busy():
                break
        left = [list(client.unfinished) for client in self.clients]
        assert not any(left), f"nothing happens any more, and these are left: {left}"
        for host in self.hosts.values():
            assert host.most_running <= host.slots
            host.waiters.clear()  # the set is over: who still waits waits no longer
            host.leases.clear()
        self._events.clear()
        return max(client.ended_s for client in self.clients) - began

    def _busy(self) -> bool:
        started = any(event for event in self._events)
        return started and (any(client.unfinished for client in self.clients) or self.now_s == 0.0)

    def bound(self, works: Iterable[float]) -> float:
        """No schedule of all this work is shorter."""
        listed = list(works)
        capacity = sum(host.slots * host.speed for host in self.hosts.values())
        return max(sum(listed) / capacity, max(listed) / max(host.speed for host in self.hosts.values()))

    def check_each_awarded_once(self) -> None:
        for client in self.clients:
            numbers = [number for number, _ in client.awards]
            assert len(numbers) == len(set(numbers)), "awarded twice"


def numbered(jobs: Sequence[Job], first: int) -> tuple[Job, ...]:
    """The same jobs with numbers from `first`: a later set of the same build."""
    return tuple([structs.replace(job, number=first + index) for index, job in enumerate(jobs)])
