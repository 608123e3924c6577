"""Load that other users make on a host: busy cores as steps over time, known to the physics, sampled by the server."""

import bisect
import random
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct, field


class ForeignLoad(Protocol):
    """Busy cores of others; anyone may ask for any time, also the future's, and gets the same answer each time."""

    def at(self, time_s: float) -> float:
        """Cores that are busy at that time."""

    def next_change_s(self, time_s: float) -> float:
        """When that changes next; infinite when it never does."""


class NoLoad(Struct, frozen=True):
    """Nobody else is there."""

    def at(self, time_s: float) -> float:
        """None, ever."""
        return 0.0

    def next_change_s(self, time_s: float) -> float:
        """Never."""
        return float("inf")


class Steps(Struct):
    """Recorded: busy cores from each time on, the first at 0; after `repeat_s` it begins anew."""

    times_s: Sequence[float]
    cores: Sequence[float]
    repeat_s: float = float("inf")

    def at(self, time_s: float) -> float:
        """Cores that are busy at that time."""
        return self.cores[bisect.bisect_right(self.times_s, time_s % self.repeat_s) - 1]

    def next_change_s(self, time_s: float) -> float:
        """When that changes next."""
        inside = time_s % self.repeat_s
        index = bisect.bisect_right(self.times_s, inside)
        following = self.times_s[index] if index < len(self.times_s) else self.repeat_s
        return time_s + max(following - inside, 1e-9)


class OnOff(Struct):
    """Busy and idle by turns, for exponential times: `busy_cores` while it is on, none else; in the mean a share
    on_s / (on_s + off_s) of the time. It begins as it would be found at any time."""

    busy_cores: float
    on_s: float
    off_s: float
    draw: random.Random
    _times: list[float] = field(default_factory=list)
    _starts_on: bool = False

    def __post_init__(self) -> None:
        self._starts_on = self.draw.random() < self.on_s / (self.on_s + self.off_s)
        self._times = [0.0]

    def _reach(self, time_s: float) -> None:
        while self._times[-1] <= time_s:
            is_on = self._is_on(len(self._times) - 1)
            self._times.append(self._times[-1] + self.draw.expovariate(1.0 / (self.on_s if is_on else self.off_s)))

    def _is_on(self, index: int) -> bool:
        return self._starts_on == (index % 2 == 0)

    def at(self, time_s: float) -> float:
        """Cores that are busy at that time."""
        self._reach(time_s)
        return self.busy_cores if self._is_on(bisect.bisect_right(self._times, time_s) - 1) else 0.0

    def next_change_s(self, time_s: float) -> float:
        """When that changes next."""
        self._reach(time_s)
        return self._times[bisect.bisect_right(self._times, time_s)]
