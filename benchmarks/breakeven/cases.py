"""The conditions of the sweep: one factor after the other is varied around a middle, and some pairs together."""

from dataclasses import dataclass, replace

from breakeven.sources import ALL, EMPTY, SMALL, Source

SLEEP = Source("sleep", "sleep", "")
"""Stands for work where there are more slots than processors; marked as emulated wherever it is shown."""


@dataclass(frozen=True)
class Case:
    """One condition: what is built, over which cable, by which client, on which hosts."""

    factor: str
    source: Source
    actions: int
    padding_bytes: int = 0
    cold: bool = False
    round_trip_s: float = 0.0005
    rate_bps: float = 1e9
    share: float = 1.0
    hosts: int = 1
    load: int = 0
    sleep_s: float = 0.0

    @property
    def emulated(self) -> bool:
        """Whether its actions sleep instead of compiling."""
        return self.source is SLEEP


def sweep(quick: bool) -> list[Case]:
    """All cases; `quick`: fewer values of each factor, and smaller work."""
    weak = Case("work", SMALL, 10, share=0.25)
    cases = [
        replace(weak, source=source, actions=12 if source in (EMPTY, SMALL) else 4)
        for source in ALL[: 3 if quick else 4]
    ]
    cases += [replace(case, share=1.0) for case in cases]
    shares = (0.1, 0.5) if quick else (0.1, 0.15, 0.35, 0.5, 0.75)
    cases += [replace(weak, factor="client", share=share) for share in shares]
    for size in (100_000, 1_000_000) if quick else (30_000, 100_000, 300_000, 1_000_000, 3_000_000):
        for cold in (False, True):
            cases.append(replace(weak, factor="input", padding_bytes=size, cold=cold, actions=6, rate_bps=1e8))
    counts = (1, 40) if quick else (1, 3, 20, 40, 80)
    cases += [replace(weak, factor="actions", actions=count) for count in counts]
    rates = (1e7, 1e8) if quick else (1e7, 3e7, 1e8, 3e8, 1e10)
    cases += [
        replace(weak, factor="rate", rate_bps=rate, padding_bytes=200_000, cold=True, actions=6) for rate in rates
    ]
    times = (0.005, 0.05) if quick else (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05)
    cases += [replace(weak, factor="round trip", round_trip_s=time) for time in times]
    cases += [replace(weak, factor="round trip", source=EMPTY, round_trip_s=time) for time in times]
    cases += [replace(weak, factor="load", load=load) for load in ((1,) if quick else (1, 2, 3))]
    hosts = (1, 4) if quick else (1, 2, 4, 8)
    for sleep_s in (0.1,) if quick else (0.02, 0.1, 0.5):
        cases += [Case("hosts", SLEEP, 24, hosts=count, sleep_s=sleep_s) for count in hosts]
    return cases


def held_back(number: int) -> bool:
    """Whether the model must predict the case of this number without having seen it: every third."""
    return number % 3 == 2
