"""The world of a policy in a build: its clock, its chance, and what is known of the wires."""

import random
import time
from collections.abc import Callable, Mapping

from rakefarm.client.farm import Member
from rakefarm.client.jobs import RemoteJob
from rakefarm.market.policy import Job


class BuildView:
    """A `View` of these hosts, by name, and of the unfinished jobs of the set that runs, by number; a seed makes chance
    repeatable."""

    def __init__(
        self, seed: int | None, members: Mapping[str, Member], jobs: Callable[[], Mapping[int, RemoteJob]]
    ) -> None:
        self._random = random.Random(seed)  # nosec B311 # a choice among hosts, which is to be repeatable
        self._members = members
        self._jobs = jobs

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def random(self) -> float:
        """A random number, 0 ≤ x < 1."""
        return self._random.random()

    def transfer_s(self, job: Job, host: str) -> float:
        """Seconds that sending what the host lacks would take."""
        mine = self._jobs().get(job.number)
        return self._members[host].transfer_seconds(mine.sizes) if mine is not None else 0.0

    def overhead_s(self, host: str) -> float:
        """Seconds that an action there has taken beyond its command, of late."""
        return self._members[host].overhead_s
