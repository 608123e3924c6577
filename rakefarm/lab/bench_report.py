"""What a bench has shown: the same statistics as of an experiment, and no winner that the data don't show.

A round has every policy once, so the n-th run of one stands beside the n-th of another: their ratio is a pair, and
whatever slowed the farm in that round has slowed both.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import TextIO

import numpy as np
from msgspec import Struct, structs

from rakefarm import __version__
from rakefarm.client.board import duration_text, safe_text
from rakefarm.client.tables import Sheet, draw_tables
from rakefarm.lab.bench import Bench, Run
from rakefarm.lab.blocks import is_unequal
from rakefarm.lab.comparisons import FEWEST_TO_SHOW, Comparison, compare_ratios, winner_of

SCHEMA_VERSION = 1


class Timing(Struct, frozen=True):
    """Seconds of one policy's builds."""

    policy: str
    runs: int
    median_s: float
    p95_s: float
    shortest_s: float
    longest_s: float


class Block(Struct, frozen=True):
    """Two rounds that stand beside each other; shares from the least to the most busy run of them, 0 to 1."""

    number: int
    hosts_busy: tuple[float, float] | None
    machine_busy: tuple[float, float]
    troubles: tuple[str, ...]

    @property
    def unequal(self) -> bool:
        """Whether its runs were not made alike."""
        return bool(self.troubles) or is_unequal(self.machine_busy) or is_unequal(self.hosts_busy or ())


class Shown(Struct, frozen=True):
    """All that is said of a bench."""

    timings: tuple[Timing, ...]
    comparisons: tuple[Comparison, ...]
    blocks: tuple[Block, ...]
    winner: str | None


def evaluate(bench: Bench, runs: Sequence[Run]) -> Shown:
    """What these runs amount to."""
    times = {policy: [run.seconds for run in runs if run.policy == policy] for policy in bench.policies}
    baseline = bench.policies[0]
    comparisons = [
        compare_ratios(
            "all", "farm", policy, baseline, [one / other for one, other in zip(mine, times[baseline], strict=True)]
        )
        for policy, mine in times.items()
        if policy != baseline
    ]
    timings = [
        Timing(
            policy,
            len(mine),
            float(np.median(mine)),
            float(np.percentile(mine, 95)),
            float(min(mine)),
            float(max(mine)),
        )
        for policy, mine in times.items()
    ]
    blocks = [_block(number, runs) for number in dict.fromkeys(run.round // 2 for run in runs)]
    return Shown(tuple(timings), tuple(comparisons), tuple(blocks), winner_of(times))


def _block(number: int, runs: Sequence[Run]) -> Block:
    mine = [run for run in runs if run.round // 2 == number]
    shares = [run.hosts_busy for run in mine if run.hosts_busy is not None]
    machine = [run.machine_busy for run in mine]
    troubles = []
    for run in mine:
        if run.left_out:
            troubles.append(f"{', '.join(run.left_out)} left out with {run.policy}")
        if run.retried:
            troubles.append(f"{run.retried} lost and awarded again with {run.policy}")
    return Block(
        number + 1,
        (min(shares), max(shares)) if shares else None,
        (min(machine), max(machine)),
        tuple(troubles),
    )


def as_record(bench: Bench, runs: Sequence[Run], shown: Shown) -> dict[str, object]:
    """For programs."""
    return {
        "schema": SCHEMA_VERSION,
        "options": list(bench.options),
        "prepare": bench.prepare,
        "policies": list(bench.policies),
        "baseline": bench.policies[0],
        "repeat": bench.repeat,
        "warm_up": bench.warm_up,
        "seed": bench.seed,
        "rakefarm": __version__,
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "runs": [structs.asdict(run) for run in runs],
        "timings": [structs.asdict(timing) for timing in shown.timings],
        "comparisons": [{**structs.asdict(each), "verdict": each.verdict} for each in shown.comparisons],
        "blocks": [{**structs.asdict(block), "unequal": block.unequal} for block in shown.blocks],
        "winner": shown.winner,
    }


def show(bench: Bench, runs: Sequence[Run], shown: Shown, environ: Mapping[str, str], stdout: TextIO) -> None:
    """For a person."""
    table = Sheet(
        ("policy", "builds", "median", "p95", "from", "to", "ratio", "95 %", "so it is"),
        words=frozenset({0, 8}),
        dispensable=("to", "from", "builds", "p95"),
    )
    against = {each.policy: each for each in shown.comparisons}
    for timing in shown.timings:
        each = against.get(timing.policy)
        seconds = (timing.median_s, timing.p95_s, timing.shortest_s, timing.longest_s)
        compared = ("1", "", "the baseline")
        if each is not None:
            compared = f"{each.ratio:.3f}", f"{each.low:.3f} to {each.high:.3f}", each.verdict
        name = safe_text(timing.policy)
        table.rows.append((name, str(timing.runs), *[f"{value:.3f} s" for value in seconds], *compared))
    blocks = Sheet(("block", "hosts busy with others", "this machine busy", "so it is"), words=frozenset({3}))
    for block in shown.blocks:
        said = [safe_text(trouble) for trouble in block.troubles]
        said = [*(["not alike"] if block.unequal else ["alike"]), *said]
        row = str(block.number), _range_text(block.hosts_busy), _range_text(block.machine_busy), "; ".join(said)
        blocks.rows.append(row)
    hosts = dict.fromkeys(host for run in runs for host in run.hosts)
    stdout.write(f"{len(runs)} builds on {safe_text(', '.join(hosts)) or 'no host'}; {_lasted(runs)}\n\n")
    draw_tables([table, blocks], environ, stdout)
    stdout.write(f"{_conclusion(bench, shown)}\n")
    unequal = [str(block.number) for block in shown.blocks if block.unequal]
    if unequal:
        count = f"{len(unequal)} of {len(shown.blocks)} blocks"
        stdout.write(f"{count} were not made alike ({', '.join(unequal)}): what they say is to be doubted\n")


def _lasted(runs: Sequence[Run]) -> str:
    return f"{duration_text(sum(run.seconds for run in runs))} in all"


def _range_text(shares: tuple[float, float] | None) -> str:
    if shares is None:
        return "unknown"
    return f"{shares[0]:.0%} to {shares[1]:.0%}"


def _conclusion(bench: Bench, shown: Shown) -> str:
    if shown.winner is not None:
        return f"fastest: {safe_text(shown.winner)}"
    if bench.repeat < FEWEST_TO_SHOW:
        return f"no difference shown: below {FEWEST_TO_SHOW} builds a policy nothing can be; take a larger --repeat"
    return "no policy is shown to be faster than every other one"
