"""What policies are held against: a schedule by who knows everything, and a bound that no schedule can beat.

The schedule is a list schedule, longest first, by earliest finish (Graham 1969; HEFT's choice of processors: Topcuoglu,
Hariri, Wu 2002), without messages, without transfers, and knowing each action's true work, every host's true speed and
the foreign load to come. It is no optimum: a policy may beat it, by luck or by a better rule.
"""

import bisect
import math
from collections.abc import Callable, Sequence

from rakefarm.lab.draw import ClientSpec, Drawn, HostSpec
from rakefarm.lab.host import Command, SimulatedHost
from rakefarm.lab.launches import Launches
from rakefarm.lab.timeline import Timeline
from rakefarm.market.bid import Job
from rakefarm.market.bids import BIDS, DEFAULT
from rakefarm.market.curve import rate

HORIZON = 48


def list_schedule_s(drawn: Drawn) -> float:
    """The makespan of the clairvoyant list schedule, in seconds. Hosts that die are not taken for dead: use the bound
    there."""
    return _ListSchedule(drawn).run()


class _ListSchedule:
    def __init__(self, drawn: Drawn) -> None:
        self._timeline = Timeline()
        launches = Launches(self._timeline, 0.0, 0)
        self._hosts = [SimulatedHost(spec, self._timeline, 1.0, launches, BIDS[DEFAULT]) for spec in drawn.hosts]
        self._ready: list[tuple[float, int, int]] = []  # negative work, which, whose: the longest first
        self._left = [0] * len(drawn.clients)
        self._sets = [list(client.sets) for client in drawn.clients]
        self._count = 0
        self._looking = False
        for number, client in enumerate(drawn.clients):
            self._timeline.at(client.arrives_s, self._arrival(number))

    def run(self) -> float:
        done = self._timeline.run(lambda: not any(self._sets) and not any(self._left), math.inf)
        return self._timeline.now_s if done else math.inf

    def _arrival(self, client: int) -> Callable[[], None]:
        return lambda: self._next_set(client)

    def _next_set(self, client: int) -> None:
        if not self._sets[client]:
            return
        actions = self._sets[client].pop(0)
        self._left[client] = len(actions)
        for action in actions:
            self._count += 1
            bisect.insort(self._ready, (-action.work_s, self._count, client))
        self._look_soon()

    def _end_of(self, client: int) -> Callable[[float, float], None]:
        def ended(elapsed_s: float, counted_s: float) -> None:
            self._left[client] -= 1
            if not self._left[client]:
                self._next_set(client)
            self._look_soon()

        return ended

    def _look_soon(self) -> None:
        """After everything else that happens at this moment."""
        if not self._looking:
            self._looking = True
            self._timeline.after(0.0, self._look)

    def _look(self) -> None:
        self._looking = False
        now = self._timeline.now_s
        places = [[now] * (host.spec.slots - host.taken) + host.ends_s() for host in self._hosts]
        started: list[tuple[SimulatedHost, float, int]] = []
        index = 0
        while index < min(len(self._ready), HORIZON) and any(times[0] <= now for times in places):
            negative, _, client = self._ready[index]
            finishes = [self._finish_s(number, times, -negative, now) for number, times in enumerate(places)]
            best = finishes.index(min(finishes))
            start_s = places[best].pop(0)
            bisect.insort(places[best], finishes[best])
            if start_s <= now:
                started.append((self._hosts[best], -negative, client))
                del self._ready[index]
            else:
                index += 1
        for host, work_s, client in started:
            host.try_start(Command(Job("other"), 1, work_s, 0, self._end_of(client)), leased=False)

    def _finish_s(self, number: int, times: Sequence[float], work_s: float, now: float) -> float:
        host = self._hosts[number]
        taken = len(times) - bisect.bisect_right(times, now)
        return host.finish_s(times[0], work_s, min(host.spec.slots, taken + 1))


# --- the bound ------------------------------------------------------------------------------------------


def lower_bound_s(drawn: Drawn) -> float:
    """No schedule ends sooner: all the work over all that the farm can do, and each client's sets one after another."""
    total = sum(action.work_s for client in drawn.clients for actions in client.sets for action in actions)
    return max(capacity_s(drawn.hosts, 0.0, total), *(client_bound_s(drawn, client) for client in drawn.clients))


def client_bound_s(drawn: Drawn, client: ClientSpec) -> float:
    """The least time at which a client can be done that has the farm for itself."""
    fastest = max(spec.true_speed for spec in drawn.hosts)
    time_s = client.arrives_s
    for actions in client.sets:
        whole_s = capacity_s(drawn.hosts, time_s, sum(action.work_s for action in actions))
        time_s = max(whole_s, time_s + max(action.work_s for action in actions) / fastest)
    return time_s


def capacity_s(hosts: Sequence[HostSpec], start_s: float, work_s: float) -> float:
    """When the whole farm would have done so much work, perfectly divided, from that time on."""
    time_s = start_s
    while True:
        alive = [spec for spec in hosts if spec.dead_at_s > time_s]
        now_rate = sum(
            spec.slots * rate(spec.true_speed, spec.cores, spec.foreign.at(time_s), spec.slots) for spec in alive
        )
        change_s = min([min(spec.foreign.next_change_s(time_s), spec.dead_at_s) for spec in alive], default=math.inf)
        if now_rate and time_s + work_s / now_rate <= change_s:
            return time_s + work_s / now_rate
        if change_s == math.inf:
            return math.inf
        work_s -= (change_s - time_s) * now_rate
        time_s = change_s
