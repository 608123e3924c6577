"""The one stream of events that a build tells, and the only source of whatever shows a build.

The live table, plain lines, `--json` and every later report are functions of this stream: nothing else
about a build is kept for display. Events are frozen; each carries the run it belongs to, a monotonic time
(seconds, for durations) and a wall-clock time, which a record shows as RFC 3339. `Stream` stamps and distributes them.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar

from msgspec import Struct, field, structs
from msgspec.structs import force_setattr

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; a new field or a new event does not raise it."""


class Event(Struct, frozen=True, kw_only=True):
    """What every event carries. `time_s` is monotonic seconds, `at_ns` nanoseconds since 1970."""

    name: ClassVar[str] = "event"
    run_id: str = ""
    time_s: float = 0.0
    at_ns: int = 0

    def as_record(self) -> dict[str, object]:
        """A flat mapping for a JSON line: the schema version and the event's name, then its fields; the time is `at`,
        RFC 3339 in UTC with milliseconds."""
        record: dict[str, object] = {
            "schema": SCHEMA_VERSION,
            "event": self.name,
            "run_id": self.run_id,
            "time_s": self.time_s,
            "at": rfc3339(self.at_ns),
        }
        # Not a loop over the fields: a build of many small actions makes thousands of records a second.
        record.update(structs.asdict(self))
        del record["at_ns"]
        return record


class BuildStarted(Event, frozen=True, kw_only=True):
    """The first event of a run: how much there is to do and who may do it. `expected_s` is what all actions together
    are expected to take (seconds on a core of speed 1; None: earlier builds don't tell); `cores` and `software` are
    this machine's."""

    name: ClassVar[str] = "build_started"
    rakefile: str
    actions: int
    sets: int
    hosts: tuple[str, ...]
    embedded: bool = False
    policy: str = ""
    expected_s: float | None = None
    cores: int = 0
    software: str = ""


class HostReady(Event, frozen=True, kw_only=True):
    """A host answered the first exchange and may be asked for quotes."""

    name: ClassVar[str] = "host_ready"
    host: str
    slots: int
    server_version: str
    isolation: str
    authentication: str = "none"
    missing: tuple[str, ...] = ()


class HostLeftOut(Event, frozen=True, kw_only=True):
    """A host is no longer asked: `reason` says what happened (unresolvable, refused, silent, lost)."""

    name: ClassVar[str] = "host_left_out"
    host: str
    reason: str


class HostLoad(Event, frozen=True, kw_only=True):
    """How a host said that it stands: cores, those that others and that all keep busy, commands of the farm that run
    and that wait, its learned speed, the load average of a minute, memory left (bytes), the age of this (seconds)."""

    name: ClassVar[str] = "host_load"
    host: str
    cores: int
    busy: float
    busy_in_all: float
    running: int
    waiting: int
    speed: float
    load_average: float
    memory_available_bytes: int
    sample_age_s: float


class SetStarted(Event, frozen=True, kw_only=True):
    """An action set begins; `index` counts from 0 in file order."""

    name: ClassVar[str] = "set_started"
    index: int
    set_name: str
    actions: int


class ActionQueued(Event, frozen=True, kw_only=True):
    """An action is ready to run and waits for a host or a local place. `expected_s` is its part of the build's."""

    name: ClassVar[str] = "action_queued"
    action: int
    set_name: str
    line: int
    command: str
    remote: bool
    expected_s: float | None = None


class QuoteReceived(Event, frozen=True, kw_only=True):
    """One host's answer to a cost request. `price` is None when it declined, and `reason` says why."""

    name: ClassVar[str] = "quote_received"
    action: int
    host: str
    price: float | None
    seconds: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


class ActionPlaced(Event, frozen=True, kw_only=True):
    """This host has won the action, at this price and with this prediction in seconds from now to its end ("local", and
    neither, for an action that runs here). A `backup` runs as well as what was placed before.

    `quoted_as` is the action that the hosts were last asked for to decide it: this one, or one of the same sort; 0: for
    none. `runner_up` would have had it next, at `runner_up_price` by the same reckoning as `price`.
    `terms` are the parts of the price by name, in the proportions that the host last asked in for such an action.
    `slowness` and `runner_up_slowness` are what was added to the prices since that host has been slower than it says;
    the first is one of the terms, too.
    """

    name: ClassVar[str] = "action_placed"
    action: int
    host: str
    price: float | None
    attempt: int = 1
    seconds: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    quoted_as: int = 0
    runner_up: str = ""
    runner_up_price: float | None = None
    slowness: float = 0.0
    runner_up_slowness: float = 0.0
    backup: bool = False


class ActionPhase(Event, frozen=True, kw_only=True):
    """An action moved on: `phase` is sending, queued, running or receiving. CPU in seconds, memory and what has been
    sent and received for it so far in bytes."""

    name: ClassVar[str] = "action_phase"
    action: int
    host: str
    phase: str
    cpu_s: float = 0.0
    memory_bytes: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class ActionRetried(Event, frozen=True, kw_only=True):
    """The farm lost or refused an action; it is bid for again. Never the command's own failure."""

    name: ClassVar[str] = "action_retried"
    action: int
    host: str
    reason: str


class CopyEnded(Event, frozen=True, kw_only=True):
    """One of two copies of an action has come to nothing: `reason` is "superseded" when the other was first and this
    one is stopped, else how it was lost or refused, while the other goes on."""

    name: ClassVar[str] = "copy_ended"
    action: int
    host: str
    reason: str


class ActionOutput(Event, frozen=True, kw_only=True):
    """What an action wrote, whole, bytes unchanged. Emitted just before its ActionFinished.

    Larger outputs arrive as several events in order, never interleaved with another action's.
    """

    name: ClassVar[str] = "action_output"
    action: int
    stdout: bytes = b""
    stderr: bytes = b""

    def as_record(self) -> dict[str, object]:
        """Bytes become text with undecodable bytes as lone surrogates escaped by `json` itself, so that no byte is
        lost."""
        text = {name: getattr(self, name).decode("utf-8", "surrogateescape") for name in ("stdout", "stderr")}
        return {**super().as_record(), **text}


class ActionFinished(Event, frozen=True, kw_only=True):
    """The end of an action. `outcome` is succeeded, failed (it ran), or not_run (the farm could not).

    `detail` reads "exit status 1", "killed by signal 9 (SIGKILL)", "missing required file x.h", …
    Times are seconds, sizes bytes; `ran_s` is how long the command ran, of the `elapsed_s` from its award to its end;
    `bytes_saved` are those of inputs that the host had already; `outputs` are the installed paths. `error` is the code
    of what went wrong (docs/errors.md), empty when nothing did.
    """

    name: ClassVar[str] = "action_finished"
    action: int
    host: str
    outcome: str
    detail: str = ""
    error: str = ""
    exit_status: int | None = None
    elapsed_s: float = 0.0
    ran_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_saved: int = 0
    outputs: tuple[str, ...] = ()


class Notice(Event, frozen=True, kw_only=True):
    """One line for the user: `level` is info, warning or error."""

    name: ClassVar[str] = "notice"
    level: str
    text: str


class BuildFinished(Event, frozen=True, kw_only=True):
    """The last event of a run. `stopped` counts actions that were begun and stopped with the build, `not_started` those
    that were never begun, `messages` those of the protocol, both ways."""

    name: ClassVar[str] = "build_finished"
    exit_status: int
    succeeded: int
    failed: int
    not_started: int
    elapsed_s: float
    interrupted: bool = False
    messages: int = 0
    stopped: int = 0


Consumer = Callable[[Event], None]


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(at_ns: int) -> str:
    """Nanoseconds since 1970 as UTC with milliseconds; the part up to the second is formatted once a second."""
    second, rest = divmod(at_ns, 1_000_000_000)
    return f"{_second(second)}.{rest // 1_000_000:03d}Z"


class Stream:
    """Stamps events with run and time and hands each to every consumer, one event at a time.

    Safe from any thread: a consumer never runs twice at once and sees events in one order. What a consumer raises goes
    to whoever emits in the main thread; in another one it is kept as `failure`, and `tell_main`, if there is one, is
    called to have the main thread find it.
    """

    def __init__(self, run_id: str, consumers: list[Consumer], tell_main: Callable[[], None] | None = None) -> None:
        self._run_id = run_id
        self._consumers = consumers
        self._tell_main = tell_main
        self.failure: Exception | None = None
        """What a consumer raised first in another thread than the main one."""
        self._lock = threading.RLock()

    def emit(self, *events: Event) -> None:
        """Hand the events on, with nothing of another thread's between them."""
        self.emit_each(events)

    def emit_each(self, events: Iterable[Event]) -> None:
        """As `emit`, for events that are made one at a time because all together they are too large."""
        with self._lock:
            for event in events:
                force_setattr(event, "run_id", self._run_id)
                force_setattr(event, "time_s", time.monotonic())
                force_setattr(event, "at_ns", time.time_ns())
                for consumer in self._consumers:
                    try:
                        consumer(event)
                    except Exception as error:
                        if not self._kept(error):
                            raise

    def _kept(self, error: Exception) -> bool:
        """Threads come and go, and most have nobody who looks at their end: only the main thread can end a build."""
        if self._tell_main is None or threading.current_thread() is threading.main_thread():
            return False
        if self.failure is None:
            self.failure = error
            self._tell_main()
        return True
