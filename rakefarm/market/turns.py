"""Whose turn it is to get a slot, as a pure rule: the server's `users` keeps the numbers, a simulator its own.

Next is who holds the fewest slots; among those, who was given one longest ago; then who has waited longest. So with one
slot users take turns, with several they get equal shares, and what one does not want the others have.
"""

from collections.abc import Callable, Iterable, Mapping

Rank = tuple[int, float, float]
"""Slots held, when served last, waiting since: the smallest is next."""


def rank(user: int, since: float, held: Mapping[int, int], served: Callable[[int], float]) -> Rank:
    """Where somebody of that user stands who has waited since then; `held` has slots by user."""
    return held.get(user, 0), served(user), since


def next_in_turn(
    waiting: Iterable[tuple[int, float]], held: Mapping[int, int], served: Callable[[int], float]
) -> Rank | None:
    """Where the one stands whose turn it is, of those who wait: user and since when. None when nobody does."""
    return min((rank(user, since, held, served) for user, since in waiting), default=None)
