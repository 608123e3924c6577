"""What a build notes down of its hosts: samples of their load, and of what parts their prices were made."""

from collections.abc import Callable, Mapping

from rakefarm.events import Event, HostLoad
from rakefarm.market.curve import Curve
from rakefarm.wire.messages import Offer

SLOWNESS = "slowness"
"""The term that a client adds to a price."""
LOAD_EVERY_S = 1.0
"""Hosts tell of their load with every answer; so often it is noted down, at the most."""


class MarketRecord:
    """Of one build. Not for two threads at once."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._due_s: dict[str, float] = {}  # by host, when its load is to be noted next
        self._shares: dict[tuple[str, object], Mapping[str, float]] = {}  # of each term, by host and task

    def curve(self, host: str, curve: Curve, now: float) -> None:
        """The host has told of itself, at `now` (monotonic seconds)."""
        if now < self._due_s.get(host, 0.0):
            return
        self._due_s[host] = now + LOAD_EVERY_S
        self._emit(
            HostLoad(
                host=host,
                cores=curve.cores,
                busy=curve.busy,
                busy_in_all=curve.busy_in_all,
                running=curve.running,
                waiting=curve.waiting,
                speed=curve.speed,
                load_average=curve.load_average,
                memory_available_bytes=curve.memory_available_bytes,
                sample_age_s=curve.sample_age_s,
            )
        )

    def offer(self, host: str, task: object, offer: Offer, now: float) -> None:
        """The host has named a price for a task."""
        self._shares[host, task] = {term.name: term.value / offer.price for term in offer.terms}
        self.curve(host, offer.curve, now)

    def terms(self, host: str, task: object, price: float, slowness: float = 0.0) -> Mapping[str, float]:
        """The parts of an award's price, as the host last divided its price for such a task, and what of it is
        `slowness`, which the host has not asked for; they add up. Empty where it has named none."""
        asked = price - slowness
        terms = {name: share * asked for name, share in self._shares.get((host, task), {}).items()}
        return {**terms, SLOWNESS: slowness} if terms and slowness else terms
