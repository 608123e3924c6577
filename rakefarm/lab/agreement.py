"""How near the simulator comes to real servers: the same plan, the same seeds, both modes."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from msgspec import Struct

from rakefarm.lab.comparisons import Row, cell_of


class Agreement(Struct, frozen=True):
    """Over `pairs` of a simulated run and a real one, of the same cell, policy and seed: errors of the simulated
    makespan as shares of the real one, and differences of the share of herded awards. `tau` is Kendall's rank
    correlation of the policies' mean makespans within each cell (1: the same order throughout), None for one policy."""

    pairs: int
    median_error: float
    largest_error: float
    median_herd: float
    largest_herd: float
    tau: float | None


def agreement(rows: Sequence[Row], factors: Sequence[str]) -> Agreement | None:
    """None where there is nothing to compare."""
    simulated = {_key(row, factors): row for row in rows if row["mode"] == "sim" and not row["lost"]}
    pairs = [
        (simulated[_key(row, factors)], row)
        for row in rows
        if row["mode"] == "farm" and not row["lost"] and _key(row, factors) in simulated
    ]
    if not pairs:
        return None
    errors = [abs(_number(one, "makespan_s") / _number(other, "makespan_s") - 1.0) for one, other in pairs]
    herds = [abs(_number(one, "herd") - _number(other, "herd")) for one, other in pairs]
    return Agreement(
        len(pairs),
        float(np.median(errors)),
        max(errors),
        float(np.median(herds)),
        max(herds),
        _tau(pairs, factors),
    )


def _key(row: Row, factors: Sequence[str]) -> tuple[str, str, str]:
    """A real farm's repetitions are all held against the one simulated run."""
    return cell_of(row, factors), str(row["policy"]), str(row["seed"])


def _number(row: Row, name: str) -> float:
    return float(str(row[name]))


def _tau(pairs: Sequence[tuple[Row, Row]], factors: Sequence[str]) -> float | None:
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one, other in pairs:
        logs = math.log(_number(one, "makespan_s")), math.log(_number(other, "makespan_s"))
        times.setdefault((cell_of(one, factors), str(one["policy"])), []).append(logs)
    means = {key: np.mean(logs, axis=0) for key, logs in times.items()}
    signs = [
        float(np.sign(means[one][0] - means[other][0]) * np.sign(means[one][1] - means[other][1]))
        for one, other in combinations(means, 2)
        if one[0] == other[0]
    ]
    return sum(signs) / len(signs) if signs else None


def agreement_text(found: Agreement) -> str:
    """In words."""
    order = "" if found.tau is None else f"; Kendall's tau of the policies' order {found.tau:.2f}"
    return (
        f"simulated against emulated hosts, {found.pairs} pairs: makespan off by {found.median_error:.1%} in the median"
        f" and {found.largest_error:.1%} at most, herd by {found.median_herd:.3f} and {found.largest_herd:.3f}{order}"
    )
