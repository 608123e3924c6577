"""Published results as acceptance tests: the lab has to find what others have found, each with its source.

They are of models simpler than a farm (one core a host, exponential work), some with closed forms, so they are computed
directly, with nothing of the market in between: they hold what the lab says of queues, sampling and age, and its
generators of chance, not the simulator of hosts.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct

from rakefarm.lab.queueing import Rule, mean_time, stale_mean_time
from rakefarm.lab.scheduling import PREQUAL_FACTOR, prequal_tails, sparrow_means

BALLS = 100_000
SERVERS = 100


class Finding(Struct, frozen=True):
    """One number: what was found, the range in which it has to be, and whether it is."""

    what: str
    found: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether it is in its range."""
        return self.low <= self.found <= self.high


class Published(Struct, frozen=True):
    """A result: where it was published, and what finds it again."""

    source: str
    find: Callable[[int], list[Finding]]


def balls_in_bins(seed: int) -> list[Finding]:
    """The fullest of as many bins as balls, each ball in the emptiest of d bins."""
    ranges = {1: (7, 9), 2: (3, 4), 3: (3, 3)}
    found = []
    for choices, (low, high) in ranges.items():
        drawn = np.random.default_rng((seed, choices)).integers(0, BALLS, (BALLS, choices)).tolist()
        bins = [0] * BALLS
        for candidates in drawn:
            bins[min(candidates, key=bins.__getitem__)] += 1
        found.append(Finding(f"balls in bins, d = {choices}: maximum", max(bins), low, high))
    return found


def closed_form(load: float, choices: int) -> float:
    """The mean time in the supermarket model of infinitely many servers."""
    if choices == 1:
        return 1.0 / (1.0 - load)
    return sum([float(load ** ((choices**i - choices) / (choices - 1))) for i in range(1, 20)])


def supermarket(seed: int) -> list[Finding]:
    """Customers that choose the shortest of d queues at random."""
    found = []
    for load, share in ((0.9, 0.04), (0.5, 0.02)):
        for choices in (1, 2, 3):
            expected = closed_form(load, choices)
            mean = mean_time(SERVERS, load, choices, seed)
            what = f"supermarket, load {load}, d = {choices}: mean time"
            found.append(Finding(what, mean, expected * (1 - share), expected * (1 + share)))
    return found


def stale_board(seed: int) -> list[Finding]:
    """A bulletin board renewed every T: least loaded of all, two choices, random, and interpreting its age."""
    random_mean = closed_form(0.9, 1)
    found = []
    for period in (0.1, 0.5):
        least, two = (stale_mean_time(SERVERS, 0.9, period, rule, seed) for rule in (Rule.LEAST, Rule.TWO))
        found.append(Finding(f"board of age ≤ {period}: least loaded / two choices", least / two, 0.0, 1.0))
    for period in (5.0, 20.0):
        least = stale_mean_time(SERVERS, 0.9, period, Rule.LEAST, seed)
        found.append(Finding(f"board of age ≤ {period:g}: least loaded / random", least / random_mean, 1.0, math.inf))
    for period in (0.5, 5.0, 20.0):
        aware = stale_mean_time(SERVERS, 0.9, period, Rule.INTERPRET, seed)
        what = f"board of age ≤ {period:g}: interpreting the age / random"
        found.append(Finding(what, aware / random_mean, 0.0, 1.0))
    return found


def list_makespan(works: Sequence[int], machines: int) -> int:
    """Each job in order to the machine that is free first."""
    free = [0] * machines
    for work in works:
        heapq.heappush(free, heapq.heappop(free) + work)
    return max(free)


def graham(seed: int) -> list[Finding]:
    """The tight cases of list scheduling, and of longest first."""
    found = []
    for machines in (2, 3, 4, 8):
        works = [work for size in range(machines, 2 * machines) for work in (size, size)] + [machines]
        ratio = list_makespan(sorted(works, reverse=True), machines) / (3 * machines)
        bound = 4 / 3 - 1 / (3 * machines)
        found.append(Finding(f"longest first, m = {machines}: over the optimum", ratio, bound - 1e-12, bound + 1e-12))
        works = [1] * (machines * (machines - 1)) + [machines]
        ratio, bound = list_makespan(works, machines) / machines, 2 - 1 / machines
        found.append(Finding(f"list scheduling, m = {machines}: over the optimum", ratio, bound - 1e-12, bound + 1e-12))
    return found


def sparrow(seed: int) -> list[Finding]:
    """Random placement, per-task sampling, batch sampling, batch sampling with late binding, at load 0.8."""
    means = sparrow_means(seed)
    found = [
        Finding(f"sparrow: {worse} / {better}", means[worse] / means[better], 1.0, math.inf)
        for worse, better in pairwise(["random", "per task", "batch", "late"])
    ]
    return [*found, Finding("sparrow: late binding / ideal", means["late"] / means["ideal"], 0.0, 1.12)]


def prequal(seed: int) -> list[Finding]:
    """Balancing processor use against hot-cold choice by requests in flight and latency."""
    tails = prequal_tails(seed)
    what = "prequal: balancing CPU / its rule, 99th percentile of latency"
    return [Finding(what, tails["cpu"] / tails["prequal"], PREQUAL_FACTOR, math.inf)]


RESULTS = {
    "balls": Published("Azar, Broder, Karlin, Upfal, SIAM J. Comput. 29 (1999)", balls_in_bins),
    "supermarket": Published("Mitzenmacher, IEEE Trans. Parallel Distrib. Syst. 12 (2001)", supermarket),
    "stale": Published(
        "Mitzenmacher, How useful is old information? (2000); Dahlin, Interpreting stale load information (2000)",
        stale_board,
    ),
    "graham": Published("Graham, SIAM J. Appl. Math. 17 (1969)", graham),
    "sparrow": Published("Ousterhout, Wendell, Zaharia, Stoica, SOSP 2013", sparrow),
    "prequal": Published("Wydrowski et al., Load is not what you should balance, NSDI 2024", prequal),
}


def check_all(only: str | None, seed: int, tell: Callable[[str], object]) -> bool:
    """Find them again, or only one; a line each. True when all hold. Raises ValueError for a name that is none."""
    if only is not None and only not in RESULTS:
        raise ValueError(f"--only {only}: there are {', '.join(RESULTS)}")
    holds = True
    for name, result in RESULTS.items():
        if only in (None, name):
            tell(f"{name}: {result.source}")
            for finding in result.find(seed):
                holds = holds and finding.holds
                mark = "ok  " if finding.holds else "FAIL"
                tell(f"  {mark} {finding.what}: {finding.found:.4g} ({_range_text(finding)})")
    return holds


def _range_text(finding: Finding) -> str:
    if finding.high == math.inf:
        return f"at least {finding.low:g}"
    if finding.high - finding.low <= 1e-9:
        return f"exactly {(finding.low + finding.high) / 2:.4g}"
    return f"{finding.low:.4g} to {finding.high:.4g}"
