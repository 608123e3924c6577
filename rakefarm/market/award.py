"""Whom to choose, once the quotes are in."""

from collections.abc import Sequence

from msgspec import Struct


class Candidate(Struct, frozen=True):
    """One host's answer as the auction compares it: its price, and what sending the inputs would add (seconds)."""

    host: str
    price: float
    transfer_s: float = 0.0

    @property
    def total(self) -> float:
        """What decides."""
        return self.price + self.transfer_s


def lowest(candidates: Sequence[Candidate]) -> int:
    """The index of the lowest price; among equals the first, so pass them in order of arrival.

    Raises ValueError when there is no candidate.
    """
    return min(range(len(candidates)), key=lambda index: candidates[index].total)
