"""How good the bids were: what the ledger's records say, in numbers. Pure: runs in, numbers out.

    records ─► runs, each with its awards ─┬─► accuracy: bid against realised time, by host, by term of the price
                                           ├─► herd: awards to a full host while another had room
                                           └─► fairness: slowdowns of runs that shared hosts

A bid is the `seconds` of the award, or else of the winning quote. It is held against the time from the award to the end
of the action, when that succeeded there: a compiler that stops at the first error says nothing of the prediction, and
neither do hosts that lost the action. `statistics` says where the formulas are from.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from rakefarm.market.runs import Run
from rakefarm.market.statistics import Pair, bias, fairness, median, median_error, rank_correlation

EMBEDDED = "local"
"""The only host of a run that named none; older ledgers have its port, which was another in every run."""


class Accuracy(Struct, frozen=True):
    """Bids against realised times. `median_error` is a share of the realised time, `bias` a factor (above 1: bids are
    too high), `rank_correlation` -1 to 1; `bid_s` and `realised_s` are medians. None where there is too little."""

    actions: int
    median_error: float | None
    bias: float | None
    rank_correlation: float | None
    bid_s: float | None
    realised_s: float | None


class TermError(Struct, frozen=True):
    """One term of the price: its median value, and its rank correlation with bid minus realised. Far above 0: where
    this term is high, bids are too high; far below: too low. None: it never varied."""

    quotes: int
    median: float
    correlation: float | None


class Herd(Struct, frozen=True):
    """Awards, and how many of them found their host full while another ready host had a free slot; `index` is their
    share. `passing` ones are not among them: their host had a slot free within a moment, see `herd_of`."""

    awards: int
    herded: int
    passing: int
    index: float | None


class Fairness(Struct, frozen=True):
    """Slowdowns of runs that shared hosts at one time: elapsed over the sum of their actions' seconds a slot.
    `index` is Jain's, the mean over the groups of such runs, each weighted by its runs."""

    groups: int
    runs: int
    index: float | None
    slowdowns: Mapping[str, float]


class Calibration(Struct, frozen=True):
    """Everything that the records say of the bids."""

    runs: int
    overall: Accuracy
    hosts: Mapping[str, Accuracy]
    terms: Mapping[str, TermError]
    herd: Herd
    fairness: Fairness


# --- the numbers ------------------------------------------------------------------------------------------


def calibrate(runs: Mapping[str, Run], run_id: str | None = None, settle_s: float = 0.0) -> Calibration:
    """The numbers of all runs, or of one; the others then still count for how full hosts were. See `herd_of` for
    `settle_s`. Raises KeyError when there is no such run."""
    chosen = list(runs.values()) if run_id is None else [runs[run_id]]
    everything: list[Pair] = []
    by_host: dict[str, list[Pair]] = defaultdict(list)
    errors: list[tuple[Mapping[str, float], float]] = []
    for run in chosen:
        for award in run.awards:
            if award.bid_s is None or award.realised_s is None or not 0.0 < award.realised_s < math.inf:
                continue
            pair = (award.bid_s, award.realised_s)
            everything.append(pair)
            by_host[EMBEDDED if run.embedded else award.host].append(pair)
            if award.terms is not None:
                errors.append((award.terms, award.bid_s - award.realised_s))
    return Calibration(
        runs=len(chosen),
        overall=accuracy_of(everything),
        hosts={host: accuracy_of(by_host[host]) for host in sorted(by_host)},
        terms=terms_of(errors),
        herd=herd_of(list(runs.values()), run_id, settle_s),
        fairness=fairness_of(runs.values(), run_id),
    )


def accuracy_of(pairs: list[Pair]) -> Accuracy:
    """Bid and realised seconds, all above 0."""
    return Accuracy(
        actions=len(pairs),
        median_error=median_error(pairs),
        bias=bias(pairs),
        rank_correlation=rank_correlation(pairs),
        bid_s=median([bid for bid, _ in pairs]) if pairs else None,
        realised_s=median([realised for _, realised in pairs]) if pairs else None,
    )


def terms_of(errors: list[tuple[Mapping[str, float], float]]) -> dict[str, TermError]:
    """For each term by name, from the terms of each winning quote and its bid minus realised. A quote without a term
    has it at 0."""
    counts = Counter(name for terms, _ in errors for name in terms)
    found = {}
    for name in sorted(counts):
        pairs = [(terms.get(name, 0.0), error) for terms, error in errors]
        found[name] = TermError(counts[name], median([value for value, _ in pairs]), rank_correlation(pairs))
    return found


# The order of what happens at one time: who is through makes room for who comes.
_LEAVES, _CHANGES, _COMES, _LEAVES_AT_ONCE = range(4)


def herd_of(runs: Collection[Run], run_id: str | None = None, settle_s: float = 0.0) -> Herd:
    """The herd index: the share of awards that found their host full (as many actions there as it has slots) while
    another host that was ready for that run had a free slot. All runs count as load, the awards of `run_id` only.

    A client says that an action has finished when its result has come and its outputs are installed; its slot was free
    a little before, and the next user of that slot is none of a herd. So an award counts as `passing` when its host is
    full no more once those are left out that end within `settle_s` seconds.
    """
    happenings: list[tuple[float, int, int, str, Run | None]] = []
    for run in runs:
        offset = run.wall_offset
        happenings += [(time_s + offset, _CHANGES, slots, host, run) for time_s, host, slots in run.ready]
        for award in run.awards:
            begin = award.placed_s + offset
            end = (run.last_s if award.ended_s is None else award.ended_s) + offset
            settled = max(begin, end - settle_s)
            happenings.append((begin, _COMES, 0, award.host, run))
            # 1: it leaves those who fill the host, 0: those who are said to be there.
            happenings.append((settled, _LEAVES if settled > begin else _LEAVES_AT_ONCE, 1, award.host, None))
            happenings.append((end, _LEAVES if end > begin else _LEAVES_AT_ONCE, 0, award.host, None))
    happenings.sort(key=lambda happening: happening[:2])
    filling: Counter[str] = Counter()
    present: Counter[str] = Counter()
    ready: dict[str, dict[str, int]] = defaultdict(dict)
    known = {run.run_id: run.slots for run in runs}
    awards = herded = passing = 0
    for _, what, number, host, happened_to in happenings:
        if happened_to is None:
            (filling if number else present)[host] -= 1
            continue
        slots = ready[happened_to.run_id]
        if what == _CHANGES:
            slots[host] = number
            continue
        if slots.get(host) == 0:  # it had been left out, and is back
            slots[host] = known[happened_to.run_id].get(host, 0)
        if slots.get(host) and run_id in (None, happened_to.run_id):
            awards += 1
            full = present[host] >= slots[host]
            if full and any(present[other] < slots[other] for other in slots if other != host):
                if filling[host] >= slots[host]:
                    herded += 1
                else:
                    passing += 1
        filling[host] += 1
        present[host] += 1
    return Herd(awards, herded, passing, herded / awards if awards else None)


class _Group(Struct):
    """Runs that shared hosts, directly or through another of the group, and when the last of them ends."""

    end_s: float
    hosts: set[str]
    slowdowns: dict[str, float]


def fairness_of(runs: Iterable[Run], run_id: str | None = None) -> Fairness:
    """Jain's index of the slowdowns of runs that overlapped in time on shared hosts; of the group of `run_id` only.

    A run's slowdown is its elapsed time over the sum of its actions' seconds, each from its award to its end, divided
    by its hosts' slots. Runs whose end is not recorded are left out.
    """
    timed = []
    for run in runs:
        slots = run.slots
        if run.started_s is not None and run.elapsed_s is not None and slots and run.action_seconds > 0.0:
            begin = run.started_s + run.wall_offset
            slowdown = run.elapsed_s / (run.action_seconds / sum(slots.values()))
            timed.append((begin, _Group(begin + run.elapsed_s, set(slots), {run.run_id: slowdown})))
    groups: list[_Group] = []  # that may still grow
    complete: list[_Group] = []
    for begin, group in sorted(timed, key=lambda item: item[0]):
        complete += [other for other in groups if other.end_s <= begin]
        groups = [other for other in groups if other.end_s > begin]
        for other in [other for other in groups if other.hosts & group.hosts]:
            groups.remove(other)
            group.end_s = max(group.end_s, other.end_s)
            group.hosts |= other.hosts
            group.slowdowns = {**other.slowdowns, **group.slowdowns}
        groups.append(group)
    shared = [group.slowdowns for group in complete + groups if len(group.slowdowns) > 1]
    shared = [slowdowns for slowdowns in shared if run_id is None or run_id in slowdowns]
    count = sum(map(len, shared))
    weighted = sum(len(slowdowns) * (fairness(list(slowdowns.values())) or 0.0) for slowdowns in shared)
    merged = {name: slowdown for slowdowns in shared for name, slowdown in slowdowns.items()}
    return Fairness(len(shared), count, weighted / count if count else None, merged)
