"""One simulated run: a drawn scenario, a policy for each client, until everything is done. No clock, no chance but the
seed's; the same seed gives the same run, event for event."""

import math
from collections.abc import Callable

from msgspec import Struct

from rakefarm.lab.attempt import Attempt
from rakefarm.lab.client import SimulatedClient
from rakefarm.lab.draw import Drawn
from rakefarm.lab.guard import GuardedPolicy
from rakefarm.lab.host import SimulatedHost
from rakefarm.lab.launches import Launches
from rakefarm.lab.network import Network
from rakefarm.lab.timeline import Timeline
from rakefarm.market import policy as market
from rakefarm.market.bid import TermsOf

LONGEST_S = 1e6


class Outcome(Struct, frozen=True):
    """What came of a run. `ended_s` is by client; `messages` are without files and `beats`; `planning_s` and
    `slowest_s` are real time that the policies took in all and for one event, 0 without a stopwatch;
    `lost` actions never ended."""

    attempts: tuple[Attempt, ...]
    ended_s: tuple[float, ...]
    messages: int
    beats: int
    copies: int
    lost: int
    events: int
    planning_s: float
    slowest_s: float


MakePolicy = Callable[[market.View], market.Policy]


def simulate(
    drawn: Drawn,
    name: str,
    make_policy: MakePolicy,
    terms_of: TermsOf,
    stopwatch: Callable[[], float] = lambda: 0.0,
) -> Outcome:
    """Run it. Raises PolicyFailed, which names the policy `name`."""
    scenario, timeline = drawn.scenario, Timeline()
    launches = Launches(timeline, scenario.launch_s, scenario.real_cores)
    hosts = {spec.name: SimulatedHost(spec, timeline, scenario.sample_s, launches, terms_of) for spec in drawn.hosts}
    network = Network(timeline, hosts, scenario.faults, drawn.seed)
    knows_all = scenario.history == "perfect"
    clients, guards = [], []
    for number, spec in enumerate(drawn.clients):
        user = 1 if scenario.one_user else number + 1
        client = SimulatedClient(number, user, spec, network, knows_all, scenario.repeatable)
        guard = GuardedPolicy(name, make_policy, client, stopwatch)
        client.decide = guard.handle
        clients.append(client)
        guards.append(guard)
    for host in hosts.values():
        if host.spec.dead_at_s < math.inf:
            timeline.at(host.spec.dead_at_s, _death(host, clients, timeline))
    timeline.run(lambda: all(client.is_done for client in clients), LONGEST_S)
    return Outcome(
        attempts=tuple(attempt for client in clients for attempt in client.attempts),
        ended_s=tuple(client.ended_s for client in clients),
        messages=sum(client.messages for client in clients),
        beats=sum(client.beats for client in clients),
        copies=sum(client.copies for client in clients),
        lost=sum(client.unfinished for client in clients),
        events=timeline.done,
        planning_s=sum(guard.planning_s for guard in guards),
        slowest_s=max(guard.slowest_s for guard in guards),
    )


def _death(host: SimulatedHost, clients: list[SimulatedClient], timeline: Timeline) -> Callable[[], None]:
    """Its processes are killed: the kernel tells every client that is connected."""

    def tell(client: SimulatedClient) -> Callable[[], None]:
        return lambda: client.host_failed(host.spec.name, comes_back=False)

    def happen() -> None:
        host.die()
        for client in clients:
            timeline.after(host.spec.round_trip_s / 2, tell(client))

    return happen
