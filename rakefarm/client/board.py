"""The board: what a table of a running build shows, kept up to date from its events.

Pure: no I/O, and the time is an argument. `apply` costs the same for the first event and the millionth, and
`snapshot` looks only at the rows it hands out, never at every action:

    ActionQueued ─► waiting ─► bidding ─► active ─► recent (bounded; older ones are only counted)
                       ▲  (first quote) (placed)      │
                       └────────────── ActionRetried ─┘

The text forms at the end (`safe_text`, `price_text`, …) are shared by everything that shows a build.
"""

import math
from collections import deque
from collections.abc import Callable
from itertools import chain, islice
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rakefarm.events import (
    ActionFinished,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    CopyEnded,
    Event,
    HostLeftOut,
    HostReady,
    QuoteReceived,
    SetStarted,
)

LOSSES = ("lost: ", "executor: ")
"""What the reason of an action that a host has lost begins with: of a client that misses its server, or a server."""
RECENT_LIMIT = 20
"""Finished actions that are still shown; a table has no more rows than this."""

ESTIMATE_AFTER_S = 2.0
ESTIMATE_AFTER_ACTIONS = 5
"""Before this much has happened, an estimate of what remains that earlier builds don't help with is only a guess."""
PRIOR_S = 2.0
"""As if the farm had already worked for so long with all its slots: a rate to begin with, soon outweighed."""


class ActionRow(Struct):
    """One action. Times are monotonic seconds, sizes bytes; `phase` is waiting, bidding, one of
    ActionPhase's, or the outcome. While it is bid for, `price` is the lowest price so far. `copy_host` runs a copy."""

    action: int
    set_name: str = ""
    line: int = 0
    command: str = ""
    host: str = ""
    copy_host: str = ""
    phase: str = "waiting"
    price: float | None = None
    placed_s: float | None = None
    elapsed_s: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    detail: str = ""
    expected_s: float = 0.0

    def elapsed_at(self, now_s: float) -> float | None:
        """Seconds it took, or has taken so far since it was placed; None while it waits."""
        if self.elapsed_s is not None or self.placed_s is None:
            return self.elapsed_s
        return max(0.0, now_s - self.placed_s)


class HostRow(Struct):
    """One host. `slots` is 0 until it is known; `busy_s` adds up how long the commands ran that ended here, `lost`
    counts those that it has lost."""

    host: str
    slots: int = 0
    running: int = 0
    done: int = 0
    busy_s: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    lost: int = 0
    state: str = "asked"
    """asked, ready, or left out."""
    reason: str = ""


class Totals(Struct, frozen=True):
    """Counts over the whole build; `remaining_s` is None when it cannot be told."""

    actions: int
    succeeded: int
    failed: int
    not_run: int
    running: int
    waiting: int
    set_number: int
    sets: int
    elapsed_s: float
    remaining_s: float | None

    @property
    def done(self) -> int:
        """Actions that have ended, however."""
        return self.succeeded + self.failed + self.not_run


class Snapshot(Struct, frozen=True):
    """What a table shows at one moment; rows are copies and stay as they are."""

    now_s: float
    rows: tuple[ActionRow, ...]
    hosts: tuple[HostRow, ...]
    totals: Totals


class Board:
    """Feed it every event in order. Not safe from several threads: its owner holds the lock."""

    def __init__(self) -> None:
        self._waiting: dict[int, ActionRow] = {}
        self._bidding: dict[int, ActionRow] = {}
        self._active: dict[int, ActionRow] = {}
        self._recent: deque[ActionRow] = deque(maxlen=RECENT_LIMIT)
        self._hosts: dict[str, HostRow] = {}
        self._outcomes = {"succeeded": 0, "failed": 0, "not_run": 0}
        self._actions = self._sets = self._set_number = 0
        self._expected_s: float | None = None
        self._expected_done_s = 0.0
        self._started_s: float | None = None
        self._ended_s: float | None = None
        self._handlers: dict[type[Event], Callable[[Any], ActionRow | None]] = {
            BuildStarted: self._build_started,
            HostReady: self._host_ready,
            HostLeftOut: self._host_left_out,
            SetStarted: self._set_started,
            ActionQueued: self._action_queued,
            QuoteReceived: self._quote_received,
            ActionPlaced: self._action_placed,
            ActionPhase: self._action_phase,
            ActionRetried: self._action_retried,
            CopyEnded: self._copy_ended,
            ActionFinished: self._action_finished,
            BuildFinished: self._build_finished,
        }

    def apply(self, event: Event) -> ActionRow | None:
        """Take one event in, in constant time. Returns the row of its action, also of one that has just
        ended, and None for an event that is not about an action or changes nothing here."""
        handler = self._handlers.get(type(event))
        return handler(event) if handler else None

    def snapshot(self, now_s: float, row_limit: int) -> Snapshot:
        """The active actions in the order they were placed, then those bid for, then the recently ended
        (newest first): `row_limit` at most. All hosts, those left out at the end."""
        rows = islice(chain(self._active.values(), self._bidding.values(), reversed(self._recent)), max(0, row_limit))
        hosts = sorted(self._hosts.values(), key=lambda host: host.state == "left out")
        return Snapshot(now_s, tuple(map(replace, rows)), tuple(map(replace, hosts)), self.totals(now_s))

    def open_rows(self) -> int:
        """How many actions are active or bid for: the rows a table would need to show them all."""
        return len(self._active) + len(self._bidding)

    def totals(self, now_s: float) -> Totals:
        """The counts at `now_s`."""
        if self._started_s is None:
            elapsed_s = 0.0
        else:
            elapsed_s = max(0.0, (now_s if self._ended_s is None else self._ended_s) - self._started_s)
        return Totals(
            actions=self._actions,
            **self._outcomes,
            running=len(self._active),
            waiting=len(self._waiting) + len(self._bidding),
            set_number=self._set_number,
            sets=self._sets,
            elapsed_s=elapsed_s,
            remaining_s=self._remaining(now_s, elapsed_s),
        )

    def _remaining(self, now_s: float, elapsed_s: float) -> float | None:
        """From what earlier builds say that each action takes, and how fast that is got through now."""
        done = self._outcomes["succeeded"]
        left = self._actions - done
        # After a failure nobody here knows whether the later sets will be begun.
        if self._outcomes["failed"] + self._outcomes["not_run"] or left <= 0:
            return None
        slots = sum(host.slots for host in self._hosts.values() if host.state == "ready")
        if self._expected_s is not None and slots:
            under_way = [min(row.expected_s, row.elapsed_at(now_s) or 0.0) for row in self._active.values()]
            done_s = self._expected_done_s + sum(under_way)
            rate = (done_s + slots * PRIOR_S) / (elapsed_s + PRIOR_S)
            return max(0.0, self._expected_s - done_s) / rate
        if done < ESTIMATE_AFTER_ACTIONS or elapsed_s < ESTIMATE_AFTER_S:
            return None
        return elapsed_s / done * left

    def _host(self, name: str) -> HostRow:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = HostRow(name)
        return host

    def _take(self, action: int) -> ActionRow:
        """Remove the action from wherever it stands; its hosts have one less running."""
        row = self._active.pop(action, None)
        if row is not None:
            self._host(row.host).running -= 1
            if row.copy_host:
                self._host(row.copy_host).running -= 1
                row.copy_host = ""
            return row
        return self._bidding.pop(action, None) or self._waiting.pop(action, None) or ActionRow(action)

    def _build_started(self, event: BuildStarted) -> None:
        self._actions, self._sets, self._started_s = event.actions, event.sets, event.time_s
        self._expected_s = event.expected_s
        for name in event.hosts:
            self._host(name)

    def _host_ready(self, event: HostReady) -> None:
        host = self._host(event.host)
        host.slots, host.state, host.reason = event.slots, "ready", ""

    def _host_left_out(self, event: HostLeftOut) -> None:
        host = self._host(event.host)
        host.state, host.reason = "left out", event.reason

    def _set_started(self, event: SetStarted) -> None:
        self._set_number = event.index + 1

    def _action_queued(self, event: ActionQueued) -> ActionRow:
        row = ActionRow(event.action, event.set_name, event.line, event.command, expected_s=event.expected_s or 0.0)
        self._waiting[event.action] = row
        return row

    def _quote_received(self, event: QuoteReceived) -> ActionRow | None:
        row = self._waiting.pop(event.action, None)
        if row is not None:
            row.phase = "bidding"
            self._bidding[event.action] = row
        else:
            row = self._bidding.get(event.action)  # an active one took an earlier quote: this is late
        if row is not None and event.price is not None and (row.price is None or event.price < row.price):
            row.price = event.price
        return row

    def _action_placed(self, event: ActionPlaced) -> ActionRow:
        running = self._active.get(event.action) if event.backup else None
        if running is not None and not running.copy_host:
            running.copy_host = event.host
            self._host(event.host).running += 1
            return running
        row = self._take(event.action)
        row.host, row.price, row.phase, row.placed_s = event.host, event.price, "placed", event.time_s
        self._active[event.action] = row
        host = self._host(event.host)
        host.running += 1
        if host.state == "asked":
            host.state = "ready"
        return row

    def _action_phase(self, event: ActionPhase) -> ActionRow | None:
        row = self._active.get(event.action)
        if row is not None and row.host == event.host:
            row.phase = event.phase
            row.bytes_sent, row.bytes_received = event.bytes_sent, event.bytes_received
        return row

    def _copy_ended(self, event: CopyEnded) -> ActionRow | None:
        self._host(event.host).lost += is_loss(event.reason)
        row = self._active.get(event.action)
        if row is None or not row.copy_host or event.host not in (row.host, row.copy_host):
            return row
        self._host(event.host).running -= 1
        if event.host == row.host:
            row.host = row.copy_host
        row.copy_host = ""
        return row

    def _action_retried(self, event: ActionRetried) -> ActionRow:
        self._host(event.host).lost += is_loss(event.reason)
        row = self._take(event.action)
        row.host, row.phase, row.price, row.placed_s = "", "waiting", None, None
        self._waiting[event.action] = row
        return row

    def _action_finished(self, event: ActionFinished) -> ActionRow:
        row = self._take(event.action)
        self._outcomes[event.outcome] += 1
        self._expected_done_s += row.expected_s
        row.host, row.phase, row.detail = event.host, event.outcome, event.detail
        row.elapsed_s, row.bytes_sent, row.bytes_received = (
            event.elapsed_s,
            event.bytes_sent,
            event.bytes_received,
        )
        if event.host:
            host = self._host(event.host)
            host.done += event.outcome != "not_run"
            host.busy_s += event.ran_s
            host.bytes_sent += event.bytes_sent
            host.bytes_received += event.bytes_received
        self._recent.append(row)
        return row

    def _build_finished(self, event: BuildFinished) -> None:
        self._ended_s = event.time_s


def is_loss(reason: str) -> bool:
    """Whether an action that was taken away from a host was lost there, as it is when the server or what ran the
    command was killed; others the host would not have just now."""
    return reason.startswith(LOSSES)


def safe_text(text: str) -> str:
    """The text with whatever could act on a terminal or mislead a reader (control and format characters,
    direction marks, lone surrogates) written as an escape. Hosts and commands are not to be believed."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


def brief_text(text: str, limit: int = 400) -> str:
    """`safe_text` of a text of any length, its middle left out beyond `limit` characters."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-(limit // 2) :]}"
    return safe_text(text)


def price_text(price: float | None) -> str:
    """Three significant digits, six characters at most; "-" when there is no price."""
    if price is None or not math.isfinite(price):
        return "-" if price is None else str(price)
    if 0 < price < 0.001:
        return "<0.001"
    for factor, unit in ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")):
        scaled = price / factor
        if abs(scaled) < 999.5:
            digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2 if abs(scaled) >= 0.1 else 3
            return f"{scaled:.{digits}f}{unit}"
    return f"{price:.0e}"


def size_text(size_bytes: int) -> str:
    """Bytes as "512 B", "1.2 KiB", "34.5 MiB", …: nine characters at most."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def duration_text(seconds: float | None) -> str:
    """Seconds as "7 ms", "0.4 s", "1:15", "1:01:40" or "27h03m": seven characters at most."""
    if seconds is None:
        return ""
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.0005 else "<1 ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours < 10 else f"{hours}h{minutes:02}m"
