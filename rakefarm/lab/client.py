"""A simulated client: it carries out what its policy decides, as the real client's broker does."""

import math
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from rakefarm.lab.attempt import Attempt
from rakefarm.lab.draw import ClientSpec, LabError
from rakefarm.lab.host import Command, SimulatedHost, Waiter
from rakefarm.lab.memory import Described, Memory
from rakefarm.lab.network import SILENCE_S, Exchange, Network
from rakefarm.market import bid as pricing
from rakefarm.market import policy as market
from rakefarm.market.curve import Curve

QUOTE_S = 3.0
"""How long a real client waits for a quote, by default."""
BEAT_S = 2.0
CLOSING_MESSAGES = 2
"""DELIVERED and ACK, besides EXECUTE and RESULT; files are not counted, since they are the same for every policy."""


class Flight(Struct, eq=False):
    """An award on its way."""

    described: Described
    attempt: Attempt
    exchange: Exchange
    command: Command


class SimulatedClient:
    """One build. It is the `View` of its policy."""

    def __init__(
        self, number: int, user: int, spec: ClientSpec, network: Network, knows_all: bool, repeatable: bool
    ) -> None:
        self.number = number
        self.user = user
        self.spec = spec
        self.attempts: list[Attempt] = []
        self.ended_s = math.inf
        self.messages = 0
        self.beats = 0  # PROGRESS, by which a server shows that it lives
        self.copies = 0
        self.decide: Callable[[market.Event], Sequence[market.Effect]] = lambda _: ()
        self._network = network
        self._timeline = network.timeline
        self._chance = network.chance("policy", number)
        self._memory = Memory(spec, list(network.hosts), knows_all, repeatable)
        self._jobs: dict[int, Described] = {}
        self._flights: dict[int, dict[str, Flight]] = {}
        self._losers: list[Flight] = []
        self._waits: dict[int, tuple[str, Waiter, Exchange]] = {}
        self._open: dict[str, list[Exchange]] = {}
        self._lease: str = ""
        self._down: set[str] = set()
        self._set = -1
        self._set_began_s = 0.0
        self._timeline.at(spec.arrives_s, self._next_set)

    # --- the view -------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds of the simulation."""
        return self._timeline.now_s

    def random(self) -> float:
        """A random number, 0 ≤ x < 1, of this client's own stream."""
        return self._chance.random()

    def transfer_s(self, job: market.Job, host: str) -> float:
        """Seconds, by the bandwidth that has been seen."""
        mine = self._jobs.get(job.number)
        return self._memory.transfer_s(mine, self._existing(host)) if mine is not None else 0.0

    def overhead_s(self, host: str) -> float:
        """Seconds that actions there have taken besides their commands."""
        return self._memory.overhead_s(self._existing(host))

    # --- sets -----------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether every action of every set has ended."""
        return self.ended_s < math.inf

    @property
    def unfinished(self) -> int:
        """Actions that have not ended, those of sets to come included."""
        return len(self._jobs) + sum(len(actions) for actions in self.spec.sets[self._set + 1 :])

    def _next_set(self) -> None:
        for _, waiter, exchange in list(self._waits.values()):
            self._leave_queue(waiter, exchange)
        self._set += 1
        self._set_began_s = self.now()
        if self._set == len(self.spec.sets):
            self.ended_s = self.now()
            return
        described = [self._memory.describe(action) for action in self.spec.sets[self._set]]
        self._jobs = {each.job.number: each for each in described}
        self._down |= {name for name, host in self._network.hosts.items() if host.dead}
        facts = [self._facts(host) for name, host in self._network.hosts.items() if name not in self._down]
        self.tell(market.SetStarted(tuple([each.job for each in described]), tuple(facts)))

    def _facts(self, host: SimulatedHost) -> market.HostFacts:
        return market.HostFacts(host.spec.name, host.spec.slots, host.spec.cores)

    def _end_job(self, number: int) -> None:
        self._jobs.pop(number, None)
        self._flights.pop(number, None)
        self._end_set()

    def _end_set(self) -> None:
        """The set is over when nothing of it runs any more, as the events at this moment will have left it."""
        index = self._set

        def begin() -> None:
            if self._set == index and not self._jobs and not self._losers and not self.is_done:
                self._next_set()

        if not self._jobs and not self._losers:
            self._timeline.after(self._here_s(), begin)

    def _here_s(self) -> float:
        """For how long what else there is of the set goes on."""
        if not self.spec.here or self._set >= len(self.spec.here):
            return 0.0
        least_s, pause_s = self.spec.here[self._set]
        return max(0.0, self._set_began_s + least_s - self.now()) + pause_s

    # --- events and effects ---------------------------------------------------------------------------

    def tell(self, event: market.Event) -> None:
        """The policy is told, and what it wants is done."""
        self._do(self.decide(event))

    def _do(self, effects: Iterable[market.Effect]) -> None:
        for effect in effects:
            match effect:
                case market.Award():
                    self._award(effect)
                case market.Ask(job, hosts):
                    for host in hosts:
                        self._ask(job, self._existing(host))
                case market.Wait(host, job):
                    self._wait(job, self._existing(host))
                case market.WakeAt(time_s):
                    self._timeline.at(max(time_s, self.now() + 1e-6), self._wake)

    def _existing(self, host: str) -> str:
        if host not in self._network.hosts:
            raise LabError(f"the policy names a host that does not exist: {host!r:.60}")
        return host

    def _wake(self) -> None:
        if self._jobs:
            self.tell(market.Woken())

    def _ask(self, job: market.Job, host: str) -> None:
        if job.number not in self._jobs or host in self._down:
            return
        asked = self._jobs[job.number].asked
        exchange = self._exchange(host, QUOTE_S)

        def arrived(there: SimulatedHost) -> None:
            answer = there.price(asked)
            exchange.answer(lambda: quoted(answer))

        def quoted(answer: pricing.Bid) -> None:
            self._close(exchange)
            self._memory.note_age(host, answer.curve.sample_age_s, self.now())
            self.tell(market.Quoted(job, host, answer.price, answer.seconds, answer.curve))

        exchange.send(arrived)

    def _wait(self, job: market.Job, host: str) -> None:
        if job.number not in self._jobs or host in self._down:
            return
        asked = self._jobs[job.number].asked
        exchange = self._exchange(host, SILENCE_S)
        began_s = self.now()

        def granted() -> None:
            there = self._network.hosts[host]
            if exchange.over:
                there.give_lease_back(self.user)
                return
            self.beats += int((self.now() - began_s) / BEAT_S)
            exchange.on_failure(lambda: there.give_lease_back(self.user))
            curve = there.price(asked, leased=1).curve
            exchange.answer(lambda: free(curve))

        def free(curve: Curve) -> None:
            self._waits.pop(id(exchange), None)
            self._close(exchange)
            self._lease = host
            self._memory.note_age(host, curve.sample_age_s, self.now())
            self.tell(market.SlotFree(host, curve, job))
            if self._lease:
                self._lease = ""
                exchange.hang_up(lambda there: there.give_lease_back(self.user))

        waiter = Waiter(self.user, self.now(), granted)
        self._waits[id(exchange)] = host, waiter, exchange

        def arrived(there: SimulatedHost) -> None:
            if not exchange.over:
                there.wait(waiter)

        exchange.send(arrived)

    def _leave_queue(self, waiter: Waiter, exchange: Exchange) -> None:
        """The link is closed: when the host sees it, it takes us off its queue, or has its slot back."""
        self._waits.pop(id(exchange), None)
        self._close(exchange)

        def arrived(there: SimulatedHost) -> None:
            there.leave(waiter)
            exchange.cut()

        exchange.hang_up(arrived)

    def _award(self, award: market.Award) -> None:
        number, host = award.job.number, self._existing(award.host)
        running = self._flights.get(number, {})
        if isinstance(award, market.BackUp):
            wanted = award.job.repeatable and len(running) == 1 and host not in running
        else:
            wanted = not running
        if number not in self._jobs or not wanted:
            return
        leased = self._lease == host
        if leased:
            self._lease = ""
        described = self._jobs[number]
        flight = self._begin(award, described)
        self._flights.setdefault(number, {})[host] = flight
        if host in self._down:
            self._timeline.after(0.0, lambda: self._lost(flight))
            return

        def arrived(there: SimulatedHost) -> None:
            if flight.command.stopped:
                if leased:
                    there.give_lease_back(self.user)
            elif not leased and not award.start_now:
                there.start_in_turn(flight.command)
            elif not there.try_start(flight.command, leased):
                curve = there.curve(described.asked)
                self._network.left(flight.attempt)
                flight.exchange.answer(lambda: self._refused(flight, curve))

        flight.exchange.send(arrived)

    def _begin(self, award: market.Award, described: Described) -> Flight:
        host, now, action, job = award.host, self.now(), described.action, described.job
        backup = isinstance(award, market.BackUp)
        attempt = Attempt(
            client=self.number,
            action=job.number,
            set=self._set,
            signature=action.signature,
            host=host,
            work_s=action.work_s,
            known_s=job.work_s,
            placed_s=now,
            price=award.price,
            bid_s=award.seconds,
            backup=backup,
            herded=self._network.enter(host),
            sample_age_s=self._memory.age_s(host, now),
        )
        self.attempts.append(attempt)
        self.copies += backup
        sends = self._memory.lacking_bytes(described, host)
        exchange = self._exchange(host, SILENCE_S)

        def ended(elapsed_s: float, counted_s: float) -> None:
            there = self._network.hosts[host]
            attempt.started_s, attempt.ended_s = self.now() - elapsed_s, self.now()
            self._network.left(attempt)
            curve = there.curve(described.asked)
            self.beats += int((self.now() - attempt.placed_s) / BEAT_S)
            exchange.answer(lambda: self._finished(flight, curve, counted_s))

        command = Command(described.asked, self.user, action.work_s, sends, ended)
        flight = Flight(described, attempt, exchange, command)
        exchange.on_failure(lambda: self._network.hosts[host].stop(flight.command))
        return flight

    def _finished(self, flight: Flight, curve: Curve, counted_s: float) -> None:
        attempt, number = flight.attempt, flight.attempt.action
        self._close(flight.exchange)
        self.messages += CLOSING_MESSAGES
        if number not in self._jobs or self._flights.get(number, {}).get(attempt.host) is not flight:
            return  # superseded on the way
        attempt.told_s, attempt.outcome = self.now(), "succeeded"
        sent_bytes = flight.command.input_bytes
        sent_s = sent_bytes / self._network.hosts[attempt.host].spec.bandwidth
        self._memory.learn(flight.described, attempt.host, sent_bytes, sent_s, counted_s)
        ran_s = attempt.ended_s - attempt.started_s
        self._memory.note_overhead(attempt.host, self.now() - attempt.placed_s - ran_s)
        for host, loser in self._flights.pop(number).items():
            if host != attempt.host:
                self._stop(loser)
        self._end_job(number)
        seconds = self.now() - attempt.placed_s
        self.tell(market.Finished(flight.described.job, attempt.host, seconds, curve, True))

    def _stop(self, loser: Flight) -> None:
        """A copy was first. The build goes on when the host has said that nothing runs there any more."""
        self._losers.append(loser)
        attempt, there = loser.attempt, self._network.hosts[loser.attempt.host]

        def stopped() -> None:
            self._losers.remove(loser)
            attempt.outcome, attempt.told_s = "superseded", self.now()
            self._network.left(attempt)
            self.tell(market.Superseded(loser.described.job, attempt.host))
            self._end_set()

        self._close(loser.exchange)
        self._network.carry(attempt.host, lambda there: there.stop(loser.command), reliable=True)
        self._timeline.after(there.spec.round_trip_s, stopped)

    def _refused(self, flight: Flight, curve: Curve) -> None:
        self._close(flight.exchange)
        if self._left(flight, "refused"):
            self.tell(market.Refused(flight.described.job, flight.attempt.host, curve))

    def _lost(self, flight: Flight) -> None:
        flight.command.stopped = True
        self._close(flight.exchange)
        if self._left(flight, "lost"):
            self.tell(market.Lost(flight.described.job, flight.attempt.host))

    def _left(self, flight: Flight, outcome: str) -> bool:
        attempt = flight.attempt
        self._network.left(attempt)
        attempt.outcome, attempt.told_s = outcome, self.now()
        there = self._flights.get(attempt.action, {})
        if there.get(attempt.host) is not flight:
            return False
        del there[attempt.host]
        if not there:
            self._flights.pop(attempt.action, None)
        return attempt.action in self._jobs

    # --- hosts that fail ------------------------------------------------------------------------------

    def _exchange(self, host: str, patience_s: float) -> Exchange:
        def count() -> None:
            self.messages += 1

        exchange = Exchange(self._network, host, patience_s, count, lambda: self.host_failed(host, comes_back=True))
        self._open.setdefault(host, []).append(exchange)
        return exchange

    def _close(self, exchange: Exchange) -> None:
        exchange.over = True
        self._open[exchange.host] = [each for each in self._open.get(exchange.host, []) if each is not exchange]

    def host_failed(self, host: str, comes_back: bool) -> None:
        """Every connection to it is cut; it is left out, for a while when it is alive."""
        if self.is_done or host in self._down:
            return
        self._down.add(host)
        for exchange in self._open.pop(host, []):
            exchange.cut()
        for key in [key for key, (name, _, _) in self._waits.items() if name == host]:
            _, waiter, _ = self._waits.pop(key)
            self._network.hosts[host].leave(waiter)
        for flights in list(self._flights.values()):
            if host in flights:
                self._lost(flights[host])
        if self._set >= 0:
            self.tell(market.HostDown(host))
        if comes_back:
            self._timeline.after(self._memory.pause_s(host), lambda: self._revive(host))

    def _revive(self, host: str) -> None:
        there = self._network.hosts[host]
        if not there.dead and host in self._down:
            self._down.discard(host)
            if not self.is_done:
                self.tell(market.HostUp(self._facts(there)))
