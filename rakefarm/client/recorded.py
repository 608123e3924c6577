"""Events read back from their records: what `--json=FILE` and the ledger have written, checked line by line.

Who wrote a file is not known: a value that no build tells is refused as one that is missing is. Events and fields that
are not known come from a later release, and are passed over.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, get_args

import msgspec

from rakefarm.client.ledger_reader import LAST, LedgerReader, choose_run, decode_slowly
from rakefarm.config import ConfigError
from rakefarm.events import (
    SCHEMA_VERSION,
    ActionFinished,
    ActionOutput,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    CopyEnded,
    Event,
    HostLeftOut,
    HostLoad,
    HostReady,
    Notice,
    QuoteReceived,
    SetStarted,
)

_Told = (
    BuildStarted
    | HostReady
    | HostLeftOut
    | HostLoad
    | SetStarted
    | ActionQueued
    | QuoteReceived
    | ActionPlaced
    | ActionPhase
    | ActionRetried
    | CopyEnded
    | ActionOutput
    | ActionFinished
    | Notice
    | BuildFinished
)
KINDS: Mapping[str, type[Event]] = {kind.name: kind for kind in get_args(_Told)}
OUTCOMES = ("succeeded", "failed", "not_run")
MOST = 1e18
"""No number of a build is larger, whatever its unit."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoEvent(Exception):
    """A record or a line is none that a build writes; the text says what is wrong with it."""


def event_of(record: Mapping[str, object]) -> Event | None:
    """The event of a record, or None for one of a later release. Raises NoEvent."""
    if record.get("schema") != SCHEMA_VERSION:
        raise NoEvent(f"its schema is not {SCHEMA_VERSION}")
    name = record.get("event")
    if not isinstance(name, str):
        raise NoEvent("it names no event")
    kind = KINDS.get(name)
    if kind is None:
        return None
    _check_numbers(record.values())
    fields = dict(record)
    fields["at_ns"] = _nanoseconds(fields.pop("at", None))
    if kind is ActionOutput:
        fields.update({stream: _bytes(fields.get(stream)) for stream in ("stdout", "stderr")})
    terms = fields.get("terms")
    if isinstance(terms, dict):  # a number that JSON can't hold was written as null
        terms = fields["terms"] = {term: value for term, value in terms.items() if value is not None}
        _check_numbers(terms.values())
    try:
        event = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise NoEvent(str(error)) from error
    if isinstance(event, ActionFinished) and event.outcome not in OUTCOMES:
        raise NoEvent("no action ends so")
    return event


def find_run(reader: LedgerReader, run: str) -> str:
    """The build that is meant: `last`, an id or the start of one. Of those that began in the same millisecond the later
    line is the last. Raises ConfigError."""
    begun = begun_runs(reader)
    if run == LAST:
        last = max(begun.values())
        return next(run_id for run_id in reversed(begun) if begun[run_id] == last)
    return choose_run(begun, run, reader.path)


def begun_runs(reader: LedgerReader) -> dict[str, str]:
    """When each build of a ledger began (RFC 3339), by its id, in the order of their lines. Raises ConfigError when
    there is none."""
    begun: dict[str, str] = {}
    for record in reader:
        if record.get("event") == BuildStarted.name:
            begun[str(record.get("run_id"))] = str(record.get("at"))
    if not begun:
        raise ConfigError(f"{reader.path}: there is no build in it")
    return begun


def read_run(reader: LedgerReader, run_id: str) -> tuple[list[Event], int]:
    """The events of one build, and how many lines were none."""
    runs, foreign = read_runs(reader, [run_id])
    return runs[run_id], foreign


def read_runs(reader: LedgerReader, run_ids: Iterable[str]) -> tuple[dict[str, list[Event]], int]:
    """The same of several, in one go."""
    runs: dict[str, list[Event]] = {run_id: [] for run_id in run_ids}
    foreign = 0
    for record in reader:
        events = runs.get(str(record.get("run_id")))
        if events is None:
            continue
        try:
            event = event_of(record)
        except NoEvent:
            foreign += 1
            continue
        if event is not None:
            events.append(event)
    return runs, reader.skipped + foreign


def read_events(file: BinaryIO) -> Iterator[Event]:
    """The events of one build, from its first on. Raises NoEvent, which names the line."""
    run_id: str | None = None
    finished = False
    number = 0
    for number, line in enumerate(_lines(file), 1):
        if not line.endswith(b"\n"):
            raise NoEvent(f"line {number} is cut")
        try:
            event = event_of(_record(line))
        except NoEvent as error:
            raise NoEvent(f"line {number} is no event of a build: {error}") from error
        if event is None:
            continue
        if run_id is None and not isinstance(event, BuildStarted):
            raise NoEvent(f"line {number} is not the beginning of a build")
        if run_id is not None and (event.run_id != run_id or isinstance(event, BuildStarted)):
            raise NoEvent(f"line {number} is of another build")
        run_id = event.run_id
        finished = isinstance(event, BuildFinished)
        yield event
    if not finished:
        raise NoEvent(f"there is no end of the build after line {number}" if number else "it is empty")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    try:
        yield from file
    except OSError as error:
        raise NoEvent(f"it can't be read: {error.strerror}") from error


def _record(line: bytes) -> Mapping[str, object]:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        record = decode_slowly(line)
    if not isinstance(record, dict):
        raise NoEvent("it is no JSON object")
    return record


def _check_numbers(values: Iterable[object]) -> None:
    """Whoever draws them reckons with them."""
    for value in values:
        if isinstance(value, int | float) and not -MOST <= value <= MOST:  # nor is NaN
            raise NoEvent("it has a number that is none of a build")


def _nanoseconds(at: object) -> int:
    """RFC 3339 as nanoseconds since 1970."""
    try:
        moment = datetime.fromisoformat(at) if isinstance(at, str) else None
        if moment is None or moment.tzinfo is None:
            raise NoEvent("it has no time of day")
        at_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError) as error:
        raise NoEvent(f"its time of day is {at!r:.40}") from error
    if at_ns < 0:
        raise NoEvent(f"its time of day is {at!r:.40}")
    return at_ns


def _bytes(text: object) -> object:
    if not isinstance(text, str):
        return text
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise NoEvent("its output is no text that stands for bytes") from error
