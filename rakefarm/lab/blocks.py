"""Runs that are compared stand beside each other in time, and in blocks: A/B/B/A, and for three A/B/C/C/B/A.

What drifts (a machine that warms up, somebody who begins to work on it) favours nobody then: within a block each comes
as early as late. Which begins a block is drawn. How busy the machine was goes beside each run, and a block whose runs
differ in that is told of: what was compared in it was not alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from rakefarm.lab.draw import stream

UNEQUAL = 0.2
"""Runs of a block between which a busy share differs by more than this are flagged."""
Item = TypeVar("Item")
Row = Mapping[str, object]


def in_turn(items: Sequence[Item], round_number: int, seed: int) -> list[Item]:
    """The order of a round, counted from 0, in which each comes once: two rounds are a block, and the second goes the
    other way round."""
    ordered = list(items)
    stream(seed, "block", round_number // 2).shuffle(ordered)
    return ordered[::-1] if round_number % 2 else ordered


def is_unequal(shares: Iterable[float]) -> bool:
    """Whether runs with these busy shares (0 to 1) were made under conditions too different to be compared."""
    known = list(shares)
    return bool(known) and max(known) - min(known) > UNEQUAL


def processor_time() -> tuple[float, float]:
    """Busy and all processor time of this machine so far, by proc(5)."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [float(word) for word in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def busy_share(before: tuple[float, float], after: tuple[float, float]) -> float:
    """What share of the time between two `processor_time` the machine was busy, 0 to 1."""
    return (after[0] - before[0]) / max(after[1] - before[1], 1e-9)


def unequal_blocks(rows: Sequence[Row], factors: Sequence[str]) -> list[str]:
    """A line for each round of an experiment on real servers whose runs were not made alike."""
    blocks: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        if row["machine_busy"] is not None:
            key = row["seed"], row["repetition"], *[f"{name} = {row[name]}" for name in factors]
            blocks.setdefault(key, []).append(float(str(row["machine_busy"])))
    return [
        f"seed {seed}, repetition {repetition}{''.join(f', {each}' for each in cell)}:"
        f" the machine was {min(shares):.0%} to {max(shares):.0%} busy"
        for (seed, repetition, *cell), shares in blocks.items()
        if is_unequal(shares)
    ]
