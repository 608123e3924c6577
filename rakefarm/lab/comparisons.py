"""Is one policy better than another? Paired log ratios of the same worlds, with bootstrap intervals.

Ratios of makespans are compared in the logarithm, where twice and half weigh alike; a seed's world is the same for
both, so its own difficulty cancels (common random numbers). The interval is the percentile bootstrap of the mean log
ratio (B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13), its percentiles moved outwards
for small samples, where it would be too narrow (T. Hesterberg, "What Teachers Should Know about the Bootstrap", The
American Statistician 69, 2015, section 3.3: the expanded percentile interval). With 1 inside, no difference was shown.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from scipy.special import ndtr, stdtrit

RESAMPLES = 10_000
FEWEST = 30
"""Below this many pairs an interval is given, and said to be of few."""
FEWEST_TO_SHOW = 6
"""Below this many pairs nothing is shown: even if the same one were shorter in all five, chance alone would do that in
one of sixteen (2 / 2⁵, the sign test), which is more than one in twenty."""
CONFIDENCE = 0.95
Row = Mapping[str, object]


class Comparison(Struct, frozen=True):
    """A policy against the baseline in one cell: the geometric mean of the ratios of makespans with its 95 % interval,
    their median and 95th percentile, and over how many pairs."""

    cell: str
    mode: str
    policy: str
    baseline: str
    pairs: int
    ratio: float
    low: float
    high: float
    median: float
    p95: float

    @property
    def verdict(self) -> str:
        """In words."""
        few = f" (only {self.pairs} pair{'s' * (self.pairs != 1)})" if self.pairs < FEWEST else ""
        if self.low <= 1.0 <= self.high or self.pairs < FEWEST_TO_SHOW:
            return f"no difference shown{few}"
        return f"{abs(self.ratio - 1.0):.1%} {'longer' if self.ratio > 1.0 else 'shorter'}{few}"


def compare(rows: Sequence[Row], baseline: str, factors: Sequence[str]) -> list[Comparison]:
    """Every other policy with the baseline, cell by cell; runs that lost an action are in no pair."""
    found = []
    for mode, cell in dict.fromkeys((str(row["mode"]), cell_of(row, factors)) for row in rows):
        times: dict[str, dict[tuple[int, int], float]] = {}
        for row in rows:
            if (str(row["mode"]), cell_of(row, factors)) == (mode, cell) and not int(str(row["lost"])):
                key = int(str(row["seed"])), int(str(row["repetition"]))
                times.setdefault(str(row["policy"]), {})[key] = float(str(row["makespan_s"]))
        theirs = times.get(baseline, {})
        for policy, mine in times.items():
            both = sorted(mine.keys() & theirs.keys())
            if policy != baseline and both:
                found.append(compare_ratios(cell, mode, policy, baseline, [mine[key] / theirs[key] for key in both]))
    return found


def cell_of(row: Row, factors: Sequence[str]) -> str:
    """A cell's name, for people."""
    return ", ".join(f"{name} = {row[name]}" for name in factors) or "all"


def compare_ratios(cell: str, mode: str, policy: str, baseline: str, ratios: Sequence[float]) -> Comparison:
    """What these ratios amount to; each is the policy's time over the baseline's in one world."""
    values = np.asarray(ratios)
    low, high = bootstrap(np.log(values))
    return Comparison(
        cell=cell,
        mode=mode,
        policy=policy,
        baseline=baseline,
        pairs=len(ratios),
        ratio=float(np.exp(np.log(values).mean())),
        low=math.exp(low),
        high=math.exp(high),
        median=float(np.median(values)),
        p95=float(np.percentile(values, 95)),
    )


def winner_of(times: Mapping[str, Sequence[float]]) -> str | None:
    """Which policy is faster than every other one, or None when the data don't show it. `times` are seconds, the n-th
    of each policy measured beside the n-th of the others. What was picked as the best of several is held to more: with
    k policies each of its k - 1 intervals has to leave 1 out at 1 - 0.05 / (k - 1) (Bonferroni)."""
    logs = {policy: np.log(np.asarray(values)) for policy, values in times.items()}
    best = min(logs, key=lambda policy: float(logs[policy].mean()))
    others = [policy for policy in logs if policy != best]
    if not others or len(times[best]) < FEWEST_TO_SHOW:
        return None
    confidence = 1.0 - (1.0 - CONFIDENCE) / len(others)
    return best if all(bootstrap(logs[best] - logs[other], confidence)[1] < 0.0 for other in others) else None


def bootstrap(values: np.ndarray, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The interval of the mean; the same for the same values."""
    count = len(values)
    chance = np.random.default_rng(count)
    means = values[chance.integers(0, count, (resamples, count))].mean(axis=1)
    tail = (1.0 - confidence) / 2.0
    if count > 1:
        tail = float(ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, tail)))
    low, high = np.percentile(means, [100.0 * tail, 100.0 * (1.0 - tail)])
    return float(low), float(high)
