"""One seed's hosts, wires, work and history. What is drawn for one part is drawn the same whatever the others are, so
that policies and variants of a scenario see the same world: common random numbers."""

import csv
import math
import random
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from rakefarm.lab.foreign import ForeignLoad, NoLoad, OnOff, Steps
from rakefarm.lab.scenario import Foreign, Scenario, Workload
from rakefarm.market.history import Experience, History
from rakefarm.market.kind import OTHER as KIND
from rakefarm.market.statistics import median

WARM_BUILDS = 3
"""How many builds a warm history has seen."""
LONGEST_TRACE_S = 1e7


class LabError(Exception):
    """An experiment can't be run; the text is one line for its author."""


class HostSpec(Struct, frozen=True):
    """A host: what it says of its speed and what that truly is."""

    name: str
    cores: int
    slots: int
    declared_speed: float
    true_speed: float
    lies: bool
    dead_at_s: float
    round_trip_s: float
    bandwidth: float
    foreign: ForeignLoad


class ActionSpec(Struct, frozen=True):
    """An action: its sort, its true work and its input."""

    signature: str
    work_s: float
    input_bytes: int


Sets = tuple[tuple[ActionSpec, ...], ...]


class ClientSpec(Struct, frozen=True):
    """A client: when it comes, its sets, and what it knows of former builds. `here` is what of each set runs on its own
    machine: for how long it lasts at the least, and how much later the next begins (seconds); empty: nothing does."""

    arrives_s: float
    sets: Sets
    history: tuple[tuple[str, Experience], ...]
    here: tuple[tuple[float, float], ...] = ()


class Drawn(Struct, frozen=True):
    """A scenario with one seed."""

    scenario: Scenario
    seed: int
    hosts: tuple[HostSpec, ...]
    clients: tuple[ClientSpec, ...]


def stream(seed: int, *words: object) -> random.Random:
    """The chance of one purpose: the same for the same seed and words, whatever else is drawn."""
    return random.Random(f"{seed}:" + ":".join(map(str, words)))  # nosec B311 # repeatable


def draw(scenario: Scenario, seed: int) -> Drawn:
    """The world of that seed. Raises LabError when a file that the scenario names can't be used."""
    return Drawn(scenario, seed, _hosts(scenario, seed), _clients(scenario, seed))


def _hosts(scenario: Scenario, seed: int) -> tuple[HostSpec, ...]:
    chance = stream(seed, "hosts")
    afflictions = [fault for fault in scenario.faults if fault.kind in ("dead", "slow", "liar")]
    afflicted = stream(seed, "faults").sample(range(scenario.hosts), min(len(afflictions), scenario.hosts))
    faults = dict(zip(afflicted, afflictions, strict=False))
    recorded = _recorded(scenario.foreign)
    hosts = []
    for number in range(scenario.hosts):
        cores = chance.choice(scenario.cores)
        true = math.exp(chance.uniform(math.log(scenario.slowest), math.log(scenario.fastest)))
        round_trip_s, bandwidth = chance.uniform(*scenario.round_trip_s), chance.choice(scenario.bandwidths)
        fault, declared = faults.get(number), true
        kind = fault.kind if fault else ""
        if fault and kind == "slow":
            true /= fault.factor
        elif fault and kind == "liar":
            declared *= fault.factor
        hosts.append(
            HostSpec(
                name=f"host{number:02d}",
                cores=cores,
                slots=scenario.slots or cores,
                declared_speed=declared,
                true_speed=true,
                lies=kind == "liar",
                dead_at_s=fault.at_s if fault and kind == "dead" else math.inf,
                round_trip_s=round_trip_s,
                bandwidth=bandwidth,
                foreign=_foreign(scenario.foreign, cores, stream(seed, "foreign", number), recorded),
            )
        )
    return tuple(hosts)


def _foreign(
    foreign: Foreign, cores: int, chance: random.Random, recorded: Sequence[tuple[float, float]]
) -> ForeignLoad:
    if foreign.kind == "none":
        return NoLoad()
    if foreign.kind == "onoff":
        return OnOff(foreign.level * cores, foreign.on_s, foreign.off_s, chance)
    end_s = max(recorded[-1][0] * len(recorded) / max(len(recorded) - 1, 1), 1e-3)
    turn = chance.randrange(len(recorded))
    rows = [*recorded[turn:], *((time + end_s, share) for time, share in recorded[:turn])]
    return Steps([time - recorded[turn][0] for time, _ in rows], [share * cores for _, share in rows], end_s)


def _recorded(foreign: Foreign) -> list[tuple[float, float]]:
    if foreign.kind != "recorded":
        return []
    rows = [(_number(foreign.file, row, "time_s"), _number(foreign.file, row, "share")) for row in _rows(foreign.file)]
    if not rows or rows[0][0] != 0.0 or any(one[0] >= other[0] for one, other in pairwise(rows)):
        raise LabError(f"{foreign.file}: time_s has to begin at 0 and to rise")
    if any(not 0.0 <= share <= 1.0 for _, share in rows):
        raise LabError(f"{foreign.file}: share has to be from 0 to 1")
    return rows


def _rows(path: str) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _number(path: str, row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except (KeyError, TypeError, ValueError):
        raise LabError(f"{path}: needs a column {column} of numbers") from None
    if not 0.0 <= value <= LONGEST_TRACE_S:
        raise LabError(f"{path}: {column} has to be from 0 to {LONGEST_TRACE_S:g}")
    return value


# --- work -----------------------------------------------------------------------------------------------


def _clients(scenario: Scenario, seed: int) -> tuple[ClientSpec, ...]:
    work = scenario.workload
    sets = _traced(work) if work.trace else _generated(work, seed)
    history = _history(scenario, seed, [action for client in sets for each in client for action in each])
    chance, at_s = stream(seed, "arrivals"), 0.0
    clients = []
    for number, each in enumerate(sets):
        if number and work.arrival_s:
            at_s += chance.expovariate(1.0 / work.arrival_s)
        clients.append(ClientSpec(at_s, each, history))
    return tuple(clients)


def typical_s(work: Workload, seed: int, signature: int) -> float:
    """The median work of that sort."""
    return work.median_s * math.exp(stream(seed, "signature", signature).gauss(0.0, work.sigma_between))


def _generated(work: Workload, seed: int) -> list[Sets]:
    typical = [typical_s(work, seed, number) for number in range(work.signatures)]
    chance = stream(seed, "work")

    def one() -> ActionSpec:
        number = chance.randrange(work.signatures)
        work_s = typical[number] * math.exp(chance.gauss(0.0, work.sigma_within))
        return ActionSpec(f"tool-{number}", work_s, work.input_bytes)

    return [tuple(tuple(one() for _ in range(work.actions)) for _ in range(work.sets)) for _ in range(work.clients)]


def _traced(work: Workload) -> list[Sets]:
    found: dict[str, dict[str, list[ActionSpec]]] = {}
    for row in _rows(work.trace):
        work_s = _number(work.trace, row, "work_s")
        if work_s <= 0.0:
            raise LabError(f"{work.trace}: work_s has to be above 0")
        sets = found.setdefault(row.get("client") or "0", {})
        action = ActionSpec(row.get("signature") or "tool", work_s, work.input_bytes)
        sets.setdefault(row.get("set") or "0", []).append(action)
    if not found:
        raise LabError(f"{work.trace}: has no rows")
    return [tuple(tuple(actions) for actions in sets.values()) for sets in found.values()]


def _history(scenario: Scenario, seed: int, actions: Sequence[ActionSpec]) -> tuple[tuple[str, Experience], ...]:
    """What builds before this one taught: other actions of the same sorts, through the average that clients keep."""
    if scenario.history != "warm":
        return ()
    work, seen = scenario.workload, History()
    typical: dict[str, float] = {}
    if work.trace:
        for signature in {action.signature for action in actions}:
            typical[signature] = median([action.work_s for action in actions if action.signature == signature])
    else:
        typical = {f"tool-{number}": typical_s(work, seed, number) for number in range(work.signatures)}
    for signature in sorted(typical):
        chance = stream(seed, "history", signature)
        if chance.random() < work.unseen:
            continue
        for _ in range(WARM_BUILDS):
            work_s = typical[signature] * math.exp(chance.gauss(0.0, work.sigma_within))
            seen.learn(signature, KIND, work.input_bytes, work_s, 0)
    return tuple(seen.items())
