"""Runs, as the ledger's records tell them: which hosts were ready, who won which action, what came of it.

Pure: records in, data out. Every run has its own monotonic clock, perhaps of another machine. Runs are merged by the
wall clock, whose milliseconds are too coarse for it: a run's monotonic times are shifted by the median distance of its
two clocks.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, get_args

import msgspec
from msgspec import Meta, Struct, field

from rakefarm.market.statistics import median

Seconds = Annotated[float, Meta(ge=0.0, le=1e12)]
Moment = Annotated[datetime, Meta(tz=True)]


# --- records: the fields that matter here ---------------------------------------------------


class _Record(Struct, frozen=True, kw_only=True, tag_field="event"):
    run_id: str
    time_s: float
    at: Moment


class _BuildStarted(_Record, frozen=True, kw_only=True, tag="build_started"):
    embedded: bool = False


class _HostReady(_Record, frozen=True, kw_only=True, tag="host_ready"):
    host: str
    slots: Annotated[int, Meta(ge=0)]


class _HostLeftOut(_Record, frozen=True, kw_only=True, tag="host_left_out"):
    host: str


class _QuoteReceived(_Record, frozen=True, kw_only=True, tag="quote_received"):
    action: int
    host: str
    seconds: float | None = None
    terms: dict[str, float | None] = {}


class _ActionPlaced(_Record, frozen=True, kw_only=True, tag="action_placed"):
    action: int
    host: str
    attempt: int = 1
    seconds: float | None = None
    terms: dict[str, float | None] = {}


class _ActionRetried(_Record, frozen=True, kw_only=True, tag="action_retried"):
    action: int
    host: str


class _CopyEnded(_Record, frozen=True, kw_only=True, tag="copy_ended"):
    action: int
    host: str


class _ActionFinished(_Record, frozen=True, kw_only=True, tag="action_finished"):
    action: int
    host: str
    outcome: str


class _BuildFinished(_Record, frozen=True, kw_only=True, tag="build_finished"):
    elapsed_s: Seconds


_Known = (
    _BuildStarted
    | _HostReady
    | _HostLeftOut
    | _QuoteReceived
    | _ActionPlaced
    | _ActionRetried
    | _CopyEnded
    | _ActionFinished
    | _BuildFinished
)
KNOWN_EVENTS = frozenset(kind.__struct_config__.tag for kind in get_args(_Known))
"""The events that are looked at; any other says nothing here."""


# --- runs -------------------------------------------------------------------------------------------------


class Quote(Struct, frozen=True):
    """What a host offered: predicted seconds, and the terms of its price."""

    seconds: float
    terms: Mapping[str, float]


class Award(Struct):
    """One action on a host that won it, the `attempt`-th time that one has it. `bid_s` predicts its end in seconds from
    the award; `terms` are those of its price, or else of the quote, when this action was quoted there. Times are the
    run's monotonic seconds; `realised_s` only of a success."""

    host: str
    placed_s: float
    bid_s: float | None
    attempt: int = 1
    terms: Mapping[str, float] | None = None
    ended_s: float | None = None
    realised_s: float | None = None


class Run(Struct):
    """One build, as far as its records tell. `ready` are changes: when, which host, and its slots, 0 for left out."""

    run_id: str
    embedded: bool = False
    clock_distances: list[float] = field(default_factory=list)
    last_s: float = 0.0
    ready: list[tuple[float, str, int]] = field(default_factory=list)
    awards: list[Award] = field(default_factory=list)
    action_seconds: float = 0.0
    started_s: float | None = None
    elapsed_s: float | None = None
    quotes: dict[int, dict[str, Quote]] = field(default_factory=dict)
    open: dict[int, dict[str, Award]] = field(default_factory=dict)

    @property
    def wall_offset(self) -> float:
        """What to add to a time of this run for seconds since 1970."""
        return median(self.clock_distances)

    @property
    def slots(self) -> dict[str, int]:
        """Slots by host, of every host that was ever ready."""
        return {host: slots for _, host, slots in self.ready if slots}

    def take(self, record: _Known) -> None:
        """Learn one record; they come in the order of their events."""
        now = self.last_s = record.time_s
        self.clock_distances.append(record.at.timestamp() - now)
        match record:
            case _QuoteReceived(seconds=float() as seconds):
                self.quotes.setdefault(record.action, {})[record.host] = Quote(seconds, _numbers(record.terms))
            case _ActionPlaced():
                self._place(record)
            case _ActionRetried() | _CopyEnded():
                self._close(record.action, record.host, now)
            case _ActionFinished():
                self._finish(record)
            case _HostReady():
                self.ready.append((now, record.host, record.slots))
            case _HostLeftOut():
                self.ready.append((now, record.host, 0))
            case _BuildStarted():
                self.started_s, self.embedded = now, record.embedded
            case _BuildFinished():
                self.elapsed_s = record.elapsed_s

    def _place(self, record: _ActionPlaced) -> None:
        awards = self.open.setdefault(record.action, {})
        for host, earlier in list(awards.items()):
            # Placed again without being lost: the host was full and refused it, at once. A higher attempt is a copy of
            # one that is slow, or its host is lost.
            if earlier.attempt == record.attempt or host == record.host:
                self._close(record.action, host, earlier.placed_s)
        quote = self.quotes.get(record.action, {}).get(record.host)
        terms: Mapping[str, float] | None = _numbers(record.terms) or None
        bid_s = record.seconds
        if quote is not None:
            terms = terms or quote.terms
            bid_s = quote.seconds if bid_s is None else bid_s
        if bid_s is not None and not 0.0 < bid_s < math.inf:
            bid_s = None
        award = awards[record.host] = Award(record.host, record.time_s, bid_s, record.attempt, terms)
        self.awards.append(award)

    def _finish(self, record: _ActionFinished) -> None:
        self.quotes.pop(record.action, None)
        for host in list(self.open.get(record.action, ())):
            award = self._close(record.action, host, record.time_s)
            if award is not None and host == record.host:
                self.action_seconds += max(0.0, record.time_s - award.placed_s)
                if record.outcome == "succeeded":
                    award.realised_s = record.time_s - award.placed_s
        self.open.pop(record.action, None)

    def _close(self, action: int, host: str, now: float) -> Award | None:
        award = self.open.get(action, {}).pop(host, None)
        if award is not None:
            award.ended_s = now
        return award


def _numbers(terms: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in terms.items() if value is not None}


def read_runs(records: Iterable[Mapping[str, object]]) -> tuple[dict[str, Run], int]:
    """The runs by their ids, and how many records could not be understood: those of a known event that lack a field or
    have one of another type. Records come in the order of the ledger, which is for each run the order of its events."""
    runs: dict[str, Run] = {}
    foreign = 0
    for record in records:
        event = record.get("event")
        if not isinstance(event, str) or event not in KNOWN_EVENTS:
            continue
        try:
            known: _Known = msgspec.convert(record, _Known)
        except msgspec.ValidationError:
            foreign += 1
            continue
        run = runs.get(known.run_id)
        if run is None:
            run = runs[known.run_id] = Run(known.run_id)
        run.take(known)
    return runs, foreign


def last_run(runs: Mapping[str, Run]) -> str | None:
    """The run that was started last, by the wall clock; None when there is none."""
    started = {run.run_id: run.started_s + run.wall_offset for run in runs.values() if run.started_s is not None}
    return max(started, key=started.__getitem__, default=None)
