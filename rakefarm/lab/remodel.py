"""A recorded build as a scenario of the simulator: what its ledger tells is taken as it is, the rest is modelled.

    work of an action   the seconds that it ran, at the rate that its host gave each of those that ran there then
    host                cores, slots and speed as it said; its true speed by the evidence where that is far off
    foreign load        as the host said, from sample to sample; commands of other builds count as such
    way to it           fixed cost and bandwidth as seen in this build; another host would lack the same inputs
    sets                what ran here meanwhile lasts as long as it did, and so do the pauses between sets

Prices are those of the default bid without surcharges. Needs, memory, disks and the network's own load are not
modelled. Which actions' times were known beforehand is told by `expected_s`; where several different commands were
expected to take exactly the same, that was the average of their kind, a guess.
"""

import bisect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from rakefarm.lab.draw import ActionSpec, ClientSpec, Drawn, HostSpec
from rakefarm.lab.foreign import Steps
from rakefarm.lab.recorded_build import RecordedAction, RecordedBuild, RecordedHost
from rakefarm.lab.scenario import Foreign, Scenario, Workload
from rakefarm.market.bandwidth import MEASURED_BYTES, START_BANDWIDTH
from rakefarm.market.curve import rate
from rakefarm.market.history import Experience, signature_of
from rakefarm.market.statistics import median

SAMPLE_S = 0.1
"""Real servers sample their load so often."""
NEAR_S = 0.25
"""A host's count of what runs there and our own awards may be so far apart in time."""
ENOUGH = 5
FAR_OFF = 2.0
"""A host whose actions took so many times more or less than they should have is not taken at its word, when at least
ENOUGH of them were known. Predictions are seldom better than half as much again."""
LEAST_WORK_S = 1e-4
LEAST_WAY_S, MOST_WAY_S = 1e-4, 1.0
FEW_BYTES = 64 << 10
"""What is sent for an action whose inputs are there is less."""


class Model(Struct, frozen=True):
    """The scenario; the actions in the order of their numbers there, from 1; each one's work in reference seconds, and
    what each host truly does of what it says (1.0: as it says)."""

    drawn: Drawn
    actions: tuple[RecordedAction, ...]
    work_s: tuple[float, ...]
    honesty: Mapping[str, float]


def remodel(build: RecordedBuild, seed: int) -> Model:
    """The model of that build."""
    hosts: list[HostSpec] = []
    work_s: dict[int, float] = {}
    honesty: dict[str, float] = {}
    for host in build.hosts:
        mine = [action for action in build.actions if action.host == host.name]
        foreign = _foreign(host, mine)
        done = _work(mine, host, foreign)
        factor = honesty[host.name] = _honesty(mine, done)
        work_s |= {number: max(value * factor, LEAST_WORK_S) for number, value in done.items()}
        hosts.append(_host(host, mine, foreign, factor))
    actions = build.actions
    known = _known(actions)
    client = ClientSpec(
        arrives_s=0.0,
        sets=tuple([tuple([_spec(action, work_s[action.number]) for action in each.actions]) for each in build.sets]),
        history=tuple(
            [
                (_signature(each), Experience(known[each.number], _inputs(each), 0, 1))
                for each in actions
                if each.number in known
            ]
        ),
        here=_here(build),
    )
    scenario = Scenario(
        hosts=len(hosts),
        foreign=Foreign("none"),
        sample_s=SAMPLE_S,
        workload=Workload(clients=1, sets=len(build.sets), actions=max(len(each.actions) for each in build.sets)),
        repeatable=build.copies > 0,
    )
    return Model(
        Drawn(scenario, seed, tuple(hosts), (client,)),
        actions,
        tuple([work_s[action.number] for action in actions]),
        honesty,
    )


def _signature(action: RecordedAction) -> str:
    return f"action-{action.number}"


def _spec(action: RecordedAction, work_s: float) -> ActionSpec:
    return ActionSpec(_signature(action), work_s, _inputs(action))


def _inputs(action: RecordedAction) -> int:
    return action.sent_bytes if action.sent_bytes >= FEW_BYTES else 0


def _known(actions: Sequence[RecordedAction]) -> dict[int, float]:
    """What was expected of those actions whose time had been seen before, by number."""
    names: dict[float, set[str]] = {}
    for action in actions:
        if action.expected_s is not None:
            names.setdefault(action.expected_s, set()).add(signature_of(action.command))
    guesses = {expected_s for expected_s, those in names.items() if len(those) > 1}
    return {
        action.number: action.expected_s
        for action in actions
        if action.expected_s is not None and action.expected_s not in guesses
    }


def _here(build: RecordedBuild) -> tuple[tuple[float, float], ...]:
    begins = [each.began_s for each in build.sets[1:]]
    pauses = [max(0.0, begin_s - each.ended_s) for each, begin_s in zip(build.sets, begins, strict=False)]
    lasts = [each.local_end_s - each.began_s for each in build.sets]
    return tuple(zip(lasts, [*pauses, 0.0], strict=True))


# --- hosts ----------------------------------------------------------------------------------------------


def _host(host: RecordedHost, mine: Sequence[RecordedAction], foreign: Steps, honesty: float) -> HostSpec:
    first, last = host.samples[0], host.samples[-1]
    way_s, bandwidth = _way(mine)
    return HostSpec(
        name=host.name,
        cores=last.cores,
        slots=host.slots,
        declared_speed=first.speed,
        true_speed=last.speed * honesty,
        lies=False,
        dead_at_s=math.inf if host.lost_s is None else host.lost_s,
        round_trip_s=way_s,
        bandwidth=bandwidth,
        foreign=foreign,
    )


def _foreign(host: RecordedHost, mine: Sequence[RecordedAction]) -> Steps:
    """Cores that others keep busy there, commands of other builds included."""
    times: list[float] = []
    cores: list[float] = []
    for sample in host.samples:
        ours = sum(each.awarded_s <= sample.at_s + NEAR_S and each.ended_s >= sample.at_s - NEAR_S for each in mine)
        busy = sample.busy + max(0, sample.running - ours)
        if not times or sample.at_s <= 0.0:
            times, cores = [0.0], [busy]
        elif sample.at_s > times[-1]:
            times.append(sample.at_s)
            cores.append(busy)
    return Steps(times, cores)


def _work(mine: Sequence[RecordedAction], host: RecordedHost, foreign: Steps) -> dict[int, float]:
    """Reference seconds of each action, if the host was as fast as it says: the rate that each command got there,
    summed up over the time in which it ran."""
    spans = {each.number: (each.ended_s - each.ran_s, each.ended_s) for each in mine}
    moments = sorted({moment for span in spans.values() for moment in span} | set(foreign.times_s))
    changes = Counter([start for start, _ in spans.values()])
    changes.subtract([end for _, end in spans.values()])
    done, sums, running = 0.0, [0.0], 0
    speed, cores = host.samples[-1].speed, host.samples[-1].cores
    for moment, following in pairwise(moments):
        running += changes[moment]
        done += (following - moment) * rate(speed, cores, foreign.at(max(moment, 0.0)), max(running, 1))
        sums.append(done)

    def at(moment: float) -> float:
        return sums[bisect.bisect_left(moments, moment)]

    return {number: at(end) - at(start) for number, (start, end) in spans.items()}


def _honesty(mine: Sequence[RecordedAction], done: Mapping[int, float]) -> float:
    known = _known(mine)
    ratios = [known[number] / done[number] for number in known if done[number] > LEAST_WORK_S]
    if len(ratios) < ENOUGH:
        return 1.0
    found = median(ratios)
    return found if found > FAR_OFF or found < 1.0 / FAR_OFF else 1.0


def _way(mine: Sequence[RecordedAction]) -> tuple[float, float]:
    """Seconds that an action there takes beyond its command when it waits for nothing, and bytes a second."""
    if not mine:
        return LEAST_WAY_S, START_BANDWIDTH
    beyond = sorted([each.elapsed_s - each.ran_s for each in mine])
    way_s = min(max(beyond[len(beyond) // 10], LEAST_WAY_S), MOST_WAY_S)
    large = [each for each in mine if each.sent_bytes >= MEASURED_BYTES]
    sending_s = sum([max(each.elapsed_s - each.ran_s - way_s, 1e-3) for each in large])
    return way_s, sum([each.sent_bytes for each in large]) / sending_s if large else START_BANDWIDTH
