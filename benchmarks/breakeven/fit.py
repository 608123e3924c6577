"""From measurements to the model's coefficients, and how far its predictions are from what it has not seen."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from breakeven.cases import held_back
from breakeven.table import Row
from scipy.optimize import least_squares

from rakefarm.market.break_even import Build, Client, Costs, Hosts, local_s, remote_s

FIRST_GUESS = Costs(0.15, 0.002, 2e-8, 0.002, 6.0, 1.1)
LEAST = 1e-10


@dataclass(frozen=True)
class Prediction:
    """One case: medians of its rounds, and what the model says."""

    row: Row
    local_s: float
    remote_s: float
    held_back: bool

    @property
    def error(self) -> float:
        """Of the time on the farm, relative."""
        return self.remote_s / self.row.remote_s - 1.0

    @property
    def right(self) -> bool:
        """Whether the model says rightly which of the two is faster."""
        return (self.remote_s < self.local_s) == (self.row.remote_s < self.row.local_s)


def setting(row: Row) -> tuple[Build, Client, Hosts]:
    """The model's view of a case."""
    build = Build(row.actions, row.work_s, row.input_bytes, row.output_bytes)
    hosts = Hosts(row.hosts, 1.0 / (1 + row.load), row.round_trip_s, row.rate_bps)
    return build, Client(1, row.share), hosts


def medians(rows: Iterable[Row]) -> list[Row]:
    """A row a case, each figure the median of its rounds."""
    by_case: dict[int, list[Row]] = {}
    for row in rows:
        by_case.setdefault(row.number, []).append(row)
    return [
        cases[0].with_times(
            statistics.median(row.local_s for row in cases),
            statistics.median(row.remote_s for row in cases),
            statistics.median(row.distcc_s for row in cases),
        )
        for _, cases in sorted(by_case.items())
    ]


def fit(rows: Sequence[Row], round_trips: float) -> Costs:
    """The coefficients that predict the times on the farm best, of all cases but those held back; the error is that of
    the logarithm, so that short builds count as much as long ones. `round_trips` that an action waits for are measured
    elsewhere: cases of one number of actions don't tell them from those of the build."""
    seen = [row for row in rows if not held_back(row.number)]

    def costs_of(logarithms: Sequence[float]) -> Costs:
        return Costs(*[math.exp(value) for value in logarithms], round_trips)

    def errors(logarithms: Sequence[float]) -> list[float]:
        costs = costs_of(logarithms)
        found = []
        for row in seen:
            build, client, hosts = setting(row)
            found.append(math.log(remote_s(build, client, hosts, costs) / row.remote_s))
        return found

    first = [math.log(value) for value in (getattr(FIRST_GUESS, name) for name in Costs.__struct_fields__[:-1])]
    best = least_squares(errors, first, loss="soft_l1", f_scale=0.1, bounds=(math.log(LEAST), 5.0))
    return costs_of(best.x)


def predict(rows: Sequence[Row], costs: Costs) -> list[Prediction]:
    """What the model says of every case."""
    predictions = []
    for row in rows:
        build, client, hosts = setting(row)
        here, there = local_s(build, client), remote_s(build, client, hosts, costs)
        predictions.append(Prediction(row, here, there, held_back(row.number)))
    return predictions
