"""A simulated server: its cores and whoever shares them, its slots, leases and queue, and what it says of itself.

What it says comes from the same pure functions as a real server's: price and curve (`market.bid`), whose turn it is
(`market.turns`), how it learns its speed (`market.speed`). What it does is physics: commands share the cores with
foreign load by the rate of `market.curve`, at the true speed, moment by moment, and not as last sampled.

All commands here run at one rate at any moment, so each needs only the amount of work that every command will have
done since the host began when it ends: one heap, however often the rate changes.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable

from msgspec import Struct, structs

from rakefarm.lab.draw import HostSpec
from rakefarm.lab.launches import Launches
from rakefarm.lab.timeline import Appointment, Timeline
from rakefarm.market import turns
from rakefarm.market.bid import (
    Bid,
    Coefficients,
    Commitments,
    Job,
    Load,
    Standing,
    TermsOf,
    bid,
    curve_of,
    expected_run,
    share_of,
)
from rakefarm.market.curve import Curve, rate
from rakefarm.market.needs import Facilities
from rakefarm.market.speed import learn_speed

MEMORY_BYTES = 64 << 30
"""No host of the simulation is ever short of it."""
MINUTE_S = 60.0
FACILITIES = Facilities()
LEAST_WORK = 1e-9


class Command(Struct, eq=False):
    """An action on a host, from its commitment to its end. `ended` is told the seconds that it ran and the reference
    seconds of work that the host counts; never, when it is stopped."""

    job: Job
    user: int
    work_s: float
    input_bytes: int
    ended: Callable[[float, float], object]
    committed: bool = False
    started_s: float = -1.0
    expected_end_s: float = 0.0
    share: float = 1.0
    stopped: bool = False


class Waiter(Struct, eq=False):
    """Who waits in the queue; `granted` is called when a slot is theirs, which counts as leased then."""

    user: int
    since_s: float
    granted: Callable[[], object]


class SimulatedHost:
    """One server."""

    def __init__(
        self, spec: HostSpec, timeline: Timeline, sample_s: float, launches: Launches, terms_of: TermsOf
    ) -> None:
        self.spec = spec
        self.dead = False
        self.leased = 0
        self._timeline = timeline
        self._sample_s = sample_s
        self._launches = launches
        self._terms_of = terms_of
        self._k = Coefficients()
        self._speed = spec.declared_speed
        self._version = 0
        self._committed: list[Command] = []
        self._waiters: list[Waiter] = []
        self._held: Counter[int] = Counter()
        self._served: dict[int, float] = {}
        # physics
        self._ends: list[tuple[float, int, Command]] = []
        self._count = 0
        self._running = 0
        self._done_work = 0.0  # of each command, had it run here from the beginning
        self._done_at_s = 0.0
        self._rate = 0.0
        self._next: Appointment | None = None
        self._wire_free_s = 0.0
        # what a sampler saw
        self._sampled_running = 0
        self._changed_s = 0.0
        self._load_average = spec.foreign.at(0.0)

    # --- what it says ---------------------------------------------------------------------------------

    def load(self) -> Load:
        """As last sampled."""
        now = self._timeline.now_s
        sampled_s = self._last_sample_s(now)
        if self._changed_s <= sampled_s:
            self._sampled_running = self._running
        cores, busy = self.spec.cores, self.spec.foreign.at(sampled_s)
        return Load(
            cores,
            busy,
            0.0,
            MEMORY_BYTES,
            MEMORY_BYTES,
            age_s=now - sampled_s,
            busy_in_all=min(float(cores), busy + self._sampled_running),
            load_average=self._load_average,
        )

    def _last_sample_s(self, now: float) -> float:
        return math.floor(now / self._sample_s) * self._sample_s

    def promised(self) -> Commitments:
        """As it is at this moment: a server knows its own commands exactly."""
        now = self._timeline.now_s
        ends = tuple(sorted([command.expected_end_s - now for command in self._committed]))
        return Commitments(self.spec.slots, len(self._committed), len(self._waiters), self.leased, ends)

    def _standing(self) -> Standing:
        self._version += 1
        return Standing(self._speed, version=self._version)

    def price(self, job: Job, leased: int = 0) -> Bid:
        """What it asks for the job now; so many of the leased slots are for this very one."""
        promised = self.promised()
        if leased:
            promised = structs.replace(promised, leased=promised.leased - leased)
        answer = bid(job, self.load(), promised, FACILITIES, self._k, self._standing(), self._terms_of)
        assert isinstance(answer, Bid)
        return answer

    def curve(self, job: Job) -> Curve:
        """Its curve for jobs like this one."""
        load, promised = self.load(), self.promised()
        run_s, _ = expected_run(job, load, promised, self._speed, self._k)
        return curve_of(load, promised, self._standing(), run_s)

    @property
    def taken(self) -> int:
        """Slots that commands or leases hold."""
        return len(self._committed) + self.leased

    def finish_s(self, start_s: float, work_s: float, commands: int) -> float:
        """When so much work would end that begins at that time beside others, `commands` with it: by the true speed and
        the foreign load to come, which only who is clairvoyant may ask for."""
        spec, time_s = self.spec, start_s
        while True:
            now_rate = rate(spec.true_speed, spec.cores, spec.foreign.at(time_s), commands)
            change_s = spec.foreign.next_change_s(time_s)
            if time_s + work_s / now_rate <= change_s:
                return time_s + work_s / now_rate
            work_s -= (change_s - time_s) * now_rate
            time_s = change_s

    def ends_s(self) -> list[float]:
        """When what runs will end if nothing begins meanwhile, ascending; for who is clairvoyant."""
        self._advance()
        now = self._timeline.now_s
        return [self.finish_s(now, max(0.0, end - self._done_work), self._running) for end, _, _ in sorted(self._ends)]

    # --- slots ----------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter) -> None:
        """A place in the queue."""
        self._waiters.append(waiter)
        self._grant_next()

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer."""
        self._waiters = [each for each in self._waiters if each is not waiter]

    def give_lease_back(self, user: int) -> None:
        """A slot that was granted is not used."""
        if self.dead:
            return
        self.leased -= 1
        self._held[user] -= 1
        self._grant_next()

    def try_start(self, command: Command, leased: bool) -> bool:
        """Begin now, in the slot that was leased or one that is free and nobody waits for; answers whether."""
        if not leased:
            if self._waiters or self.taken >= self.spec.slots:
                return False
            self._hold(command.user)
        self._commit(command, leased)
        self._receive(command, lambda: self._launch(command))
        return True

    def start_in_turn(self, command: Command) -> None:
        """Take its inputs, wait for a slot, and begin."""

        def granted() -> None:
            if command.stopped:
                self.give_lease_back(command.user)
            else:
                self._commit(command, leased=True)
                self._launch(command)

        def wait() -> None:
            if not command.stopped and not self.dead:
                self.wait(Waiter(command.user, self._timeline.now_s, granted))

        self._receive(command, wait)

    def stop(self, command: Command) -> None:
        """The client is gone from it, wherever it is."""
        if command.stopped or self.dead:
            return
        command.stopped = True
        if any(each is command for _, _, each in self._ends):
            self._advance()
            self._ends = [entry for entry in self._ends if entry[2] is not command]
            heapq.heapify(self._ends)
            self._set_running(self._running - 1)
        if command.committed:
            self._release(command)

    def die(self) -> None:
        """A power cut: everything here is gone."""
        self.dead = True
        for command in self._committed:
            command.stopped = True
        self._committed, self._waiters, self._ends, self.leased = [], [], [], 0
        if self._next is not None:
            self._next.called_off = True

    def _hold(self, user: int) -> None:
        self._held[user] += 1
        self._served[user] = self._timeline.now_s

    def _when_served(self, user: int) -> float:
        return self._served.get(user, 0.0)

    def _grant_next(self) -> None:
        while self._waiters and self.taken < self.spec.slots and not self.dead:
            waiter = min(
                self._waiters, key=lambda each: turns.rank(each.user, each.since_s, self._held, self._when_served)
            )
            self.leave(waiter)
            self._hold(waiter.user)
            self.leased += 1
            waiter.granted()

    def _commit(self, command: Command, leased: bool) -> None:
        others = Commitments(self.spec.slots, len(self._committed), len(self._waiters), self.leased)
        run_s, command.share = expected_run(command.job, self.load(), others, self._speed, self._k)
        self.leased -= leased
        command.expected_end_s = self._timeline.now_s + run_s
        command.committed = True
        self._committed.append(command)

    def _release(self, command: Command) -> None:
        command.committed = False
        self._committed = [each for each in self._committed if each is not command]
        self._held[command.user] -= 1
        self._grant_next()

    # --- what it does ---------------------------------------------------------------------------------

    def _receive(self, command: Command, then: Callable[[], object]) -> None:
        """Its inputs come over the host's wire, after those that came before."""
        if not command.input_bytes:
            then()
            return
        begins_s = max(self._wire_free_s, self._timeline.now_s + self.spec.round_trip_s)  # NEED goes back first
        self._wire_free_s = begins_s + command.input_bytes / self.spec.bandwidth
        self._timeline.at(self._wire_free_s, then)

    def _launch(self, command: Command) -> None:
        if not command.stopped and not self.dead:
            self._launches.launch(lambda: self._run(command))

    def _run(self, command: Command) -> None:
        if command.stopped or self.dead:
            return
        self._advance()
        command.started_s = self._timeline.now_s
        self._count += 1
        heapq.heappush(self._ends, (self._done_work + command.work_s, self._count, command))
        self._set_running(self._running + 1)

    def _advance(self) -> None:
        now = self._timeline.now_s
        passed_s = now - self._done_at_s
        if passed_s <= 0.0:
            return
        self._done_work += passed_s * self._rate
        runnable = self._running + self.spec.foreign.at(self._done_at_s)
        self._load_average += (runnable - self._load_average) * -math.expm1(-passed_s / MINUTE_S)
        self._done_at_s = now

    def _set_running(self, running: int) -> None:
        now = self._timeline.now_s
        if self._changed_s <= self._last_sample_s(now):
            self._sampled_running = self._running
        self._changed_s = now
        self._running = running
        self._plan_next()

    def _plan_next(self) -> None:
        """When the next command ends, or the rate changes."""
        if self._next is not None:
            self._next.called_off = True
            self._next = None
        now, spec = self._timeline.now_s, self.spec
        self._rate = rate(spec.true_speed, spec.cores, spec.foreign.at(now), self._running)
        if self._ends:
            end_s = now + max(0.0, self._ends[0][0] - self._done_work) / self._rate
            self._next = self._timeline.at(min(end_s, spec.foreign.next_change_s(now)), self._step)

    def _step(self) -> None:
        self._next = None
        self._advance()
        ended = []
        while self._ends and self._ends[0][0] <= self._done_work + LEAST_WORK:
            ended.append(heapq.heappop(self._ends)[2])
        self._set_running(self._running - len(ended))
        for command in ended:
            self._end(command)

    def _end(self, command: Command) -> None:
        elapsed_s = self._timeline.now_s - command.started_s
        self._release(command)
        share = (command.share + share_of(command.job, self.load(), len(self._committed))) / 2
        counted_s = elapsed_s * self._speed * share
        if command.job.work_s > 0.0 and not self.spec.lies:
            self._speed = learn_speed(self._speed, command.job.work_s, elapsed_s, share)
        command.ended(elapsed_s, counted_s)
