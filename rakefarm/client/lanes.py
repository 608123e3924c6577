"""Lanes: which of a host's places each action is drawn in. Pure.

No event says which slot a command has. The lowest lane that is free stands for it, so a host has as many lanes as it
ever had actions at one time; those beyond its slots waited there.
"""

import heapq


class Lanes:
    """Take a lane when an action comes, give it back when it goes, in the order of time."""

    def __init__(self) -> None:
        self._free: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}

    def take(self, host: str) -> int:
        """The lowest free lane of the host, from 0."""
        free = self._free.setdefault(host, [])
        if free:
            return heapq.heappop(free)
        lane = self._counts.get(host, 0)
        self._counts[host] = lane + 1
        return lane

    def release(self, host: str, lane: int) -> None:
        """The action that had this lane has left it."""
        heapq.heappush(self._free[host], lane)
