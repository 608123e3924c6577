"""`rakefarm metrics`: how every host is, as Prometheus reads it. An exporter beside the farm, so that no server carries
the library, or a thread for it: each scrape shows what the hosts told last."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from rakefarm.client.watch import Sight, Watch

GAUGES = {
    "up": ("whether the host tells how it is", lambda sight: float(sight.status is not None)),
    "slots": ("commands that may run at one time", lambda sight: sight.status.curve.slots),
    "slots_free": ("slots that are free now", lambda sight: sight.status.curve.free_slots),
    "running": ("commands that run or have a slot", lambda sight: sight.status.curve.running),
    "waiting": ("clients that wait for a slot", lambda sight: sight.status.curve.waiting),
    "price": ("what a compilation would cost now; 0 when it is declined", lambda sight: sight.status.price),
    "speed": ("the learned speed; 1 is the reference", lambda sight: sight.status.curve.speed),
    "cores": ("processors that commands may use", lambda sight: sight.status.curve.cores),
    "busy_cores": ("processors that are busy", lambda sight: sight.status.curve.busy_in_all),
    "load_average": ("runnable processes, over the last minute", lambda sight: sight.status.curve.load_average),
    "memory_free_bytes": ("memory that is left", lambda sight: sight.status.memory.free_bytes),
    "sandbox_free_bytes": ("disk that is left to commands", lambda sight: sight.status.sandbox.free_bytes),
    "cache_free_bytes": ("disk that is left to the content store", lambda sight: sight.status.cache.free_bytes),
    "clock_seconds": ("the host's clock, since 1970", lambda sight: sight.status.clock_s),
    "uptime_seconds": ("how long the server has served", lambda sight: sight.status.uptime_s),
}
COUNTERS = {
    "store_hits": ("inputs that the content store had", lambda sight: sight.status.store.hits),
    "store_misses": ("inputs that had to be sent", lambda sight: sight.status.store.misses),
    "store_hit_bytes": ("bytes of inputs that the content store had", lambda sight: sight.status.store.hit_bytes),
    "store_missed_bytes": ("bytes of inputs that had to be sent", lambda sight: sight.status.store.missed_bytes),
}


class FarmCollector(Collector):
    """What a watch has seen last, a sample a host."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Any]:
        """At each scrape."""
        sights = self._watch.sights()
        for name, (text, read) in GAUGES.items():
            yield self._family(GaugeMetricFamily(f"rakefarm_{name}", text, labels=["host"]), name, read, sights)
        for name, (text, read) in COUNTERS.items():
            yield self._family(CounterMetricFamily(f"rakefarm_{name}", text, labels=["host"]), name, read, sights)

    @staticmethod
    def _family(family: Any, name: str, read: Any, sights: list[Sight]) -> Any:
        for sight in sights:
            if sight.status is not None or name == "up":
                family.add_metric([sight.host], read(sight))
        return family
