"""What a plan decides for one job: a host with its times, or a slot that is held already."""

from msgspec import Struct

from rakefarm.market.known_host import KnownHost
from rakefarm.market.policy import Job


class Choice(Struct):
    """A host for a job: what it costs there (the price, and the time until it can start), when it starts and ends
    (seconds from now), and how long it occupies a slot."""

    host: KnownHost
    cost: float
    start: float
    finish: float
    run: float


def runner_up_of(job: Job, second: Choice | None) -> tuple[str, float | None, float]:
    """Its name, its price, and what of that is its slowness."""
    return ("", None, 0.0) if second is None else (second.host.name, second.cost, second.host.slowness(job))


class Held(Struct, frozen=True):
    """A slot that a host holds for us, and for which needs."""

    host: str
    needs: object

    def fits(self, host: str, job: Job) -> bool:
        """Whether the job may use it, on that host."""
        return host == self.host and job.needs == self.needs
