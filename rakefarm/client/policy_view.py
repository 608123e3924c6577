"""The world of a policy in a build: its clock, its chance, and what is known of the wires."""

import random
import time
from collections.abc import Callable

from rakefarm.market.policy import Job


class BuildView:
    """A `View`. `transfer_s` answers seconds by a job's number and a host's name; a seed makes chance repeatable."""

    def __init__(self, seed: int | None, transfer_s: Callable[[int, str], float]) -> None:
        self._random = random.Random(seed)  # nosec B311 # a choice among hosts, which is to be repeatable
        self._transfer_s = transfer_s

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def random(self) -> float:
        """A random number, 0 ≤ x < 1."""
        return self._random.random()

    def transfer_s(self, job: Job, host: str) -> float:
        """Seconds that sending what the host lacks would take."""
        return self._transfer_s(job.number, host)
