"""The ledger: what every build of this user says of the market, one JSON line an event, for later reckoning.

A consumer of the event stream. `docs/ledger.md` lists the events and their fields; a line is `Event.as_record()`.

    event ─► gathered ─► (every 0.2 s, and at the end) ─► encoded, one write ─► ledger.jsonl ─► ledger.jsonl.1

Many builds write at once, without a lock. The kernel puts each write to a file opened with O_APPEND at its end, whole
(write(2); a local file system), so lines never mix. A lock is held only to rotate, on the file itself: who has it, and
still finds that file under its name, renames it. A build that was about to write meanwhile still holds the old file,
now `ledger.jsonl.1`, and its lines are kept there; it looks at the name before each write, so that it comes over with
its next. A line is lost only if the file is rotated twice between that look and the write.

A ledger must never harm a build: whatever goes wrong is said once, in one line, and nothing is written from then on.
"""

import os
import stat
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from rakefarm.client.plain import ViewError
from rakefarm.config import ClientSettings
from rakefarm.events import (
    ActionFinished,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    Consumer,
    CopyEnded,
    Event,
    HostLeftOut,
    HostLoad,
    HostReady,
    Notice,
    QuoteReceived,
)

RECORDED: frozenset[type[Event]] = frozenset(
    {
        BuildStarted,
        HostReady,
        HostLeftOut,
        HostLoad,
        ActionQueued,
        QuoteReceived,
        ActionPlaced,
        ActionRetried,
        CopyEnded,
        ActionFinished,
        BuildFinished,
    }
)
"""What matters for the market. Phases and outputs of actions don't, and notices are for the user."""

WRITE_EVERY_S = 0.2
"""Lines are gathered for this long: one write for all, and still soon enough for somebody who watches the file."""

Veil = Callable[[dict[str, Any]], None]
"""Replaces what a record should not tell, in place."""


class LedgerFailed(Exception):
    """The ledger can't be written; the text is one line that says where and why."""


def ledger_path(environ: Mapping[str, str]) -> str:
    """`$XDG_STATE_HOME/rakefarm/ledger.jsonl`, with ~/.local/state when that is unset or, as the XDG base directory
    specification wants it, not absolute. Raises LedgerFailed without a home, too."""
    home = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(environ.get("HOME", ""), ".local", "state")
    if not os.path.isabs(home):
        raise LedgerFailed("neither XDG_STATE_HOME nor HOME names a directory")
    return os.path.join(home, "rakefarm", "ledger.jsonl")


class Ledger:
    """Appends events to the ledger. Calls must come one at a time, as `Stream` sees to.

    A problem is told to `view` as a warning, once; nothing is raised for it but what the view raises. Use it as a
    context manager, inside the view's: `close` writes what is still gathered.
    """

    def __init__(self, settings: ClientSettings, environ: Mapping[str, str], view: Consumer) -> None:
        """Nothing is opened before there is something to write."""
        self._environ = environ
        self._size_bytes = settings.ledger_size
        self._hashed = settings.ledger_hash
        self._view = view
        self._off = not settings.ledger
        self._gathered: list[Event] = []
        self._due_s = 0.0  # monotonic, as the events' time
        self._path = ""
        self._descriptor: int | None = None
        self._veil: Veil | None = None
        self._encoder = msgspec.json.Encoder()

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        kind = type(event)
        if kind in RECORDED:
            self._gathered.append(event)
        # A view is told BuildStarted first and BuildFinished last; a warning of ours comes between the two.
        if (event.time_s >= self._due_s and kind is not BuildStarted) or kind is BuildFinished:
            self._due_s = event.time_s + WRITE_EVERY_S
            self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        count = len(self._gathered)
        if count and not self._off:
            last = self._gathered[-1]
            try:
                self._write(self._encode(self._gathered))
            except (OSError, LedgerFailed) as error:
                self._give_up(last, error)
        # Not before the write: an interrupt is raised between any two instructions, and must lose nothing.
        del self._gathered[:count]

    def close(self) -> None:
        """Write what is still gathered, and close the file. Again does no harm."""
        self.flush()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except ViewError:
            if error is None:  # the first error wins
                raise

    def _give_up(self, last: Event, error: OSError | LedgerFailed) -> None:
        self._off = True
        text = str(error)
        if isinstance(error, OSError):
            text = f"{error.filename or self._path}: {error.strerror}"
        text = f"no ledger is kept: {text}"
        self._view(Notice(level="warning", text=text, run_id=last.run_id, time_s=last.time_s, at_ns=last.at_ns))

    # --- lines ----------------------------------------------------------------------------------------

    def _encode(self, events: list[Event]) -> bytes:
        if self._hashed and self._veil is None:
            from rakefarm.client.pseudonyms import pseudonyms  # hashlib, only for who wants it

            self._path = self._path or prepared_path(self._environ)
            self._veil = pseudonyms(self._path.removesuffix(".jsonl") + ".key")
        records = [event.as_record() for event in events]
        if self._veil is not None:
            for record in records:
                self._veil(record)
        try:
            return self._encoder.encode_lines(records)
        except UnicodeEncodeError:
            # A name that isn't UTF-8. The lines of --json can hold it, at twice the cost.
            from rakefarm.client.jsonlines import record_line

            return b"".join(record_line(record) for record in records)

    # --- the file -------------------------------------------------------------------------------------

    def _write(self, lines: bytes) -> None:
        descriptor = self._current_file()
        written = os.write(descriptor, lines)
        while written < len(lines):  # a disk that is full, or about to be; the next write says which
            written += os.write(descriptor, lines[written:])

    def _current_file(self) -> int:
        """The file that has the ledger's name, opened, with room below its size."""
        if self._descriptor is None:
            return self._open()
        ours = os.fstat(self._descriptor)
        if self._size_bytes and ours.st_size >= self._size_bytes:
            self._rotate(self._descriptor)
        if not self._has_the_name(ours):
            os.close(self._descriptor)
            self._descriptor = None
            return self._open()
        return self._descriptor

    def _open(self) -> int:
        self._path = self._path or prepared_path(self._environ)
        # O_NONBLOCK: somebody's named pipe must not stop the build. O_RDWR: to look at the last byte.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = self._descriptor = os.open(self._path, flags, 0o600)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LedgerFailed(f"{self._path}: not a file")
        if status.st_size and os.pread(descriptor, 1, status.st_size - 1) != b"\n":
            os.write(descriptor, b"\n")  # a line that a full disk has cut does not take ours with it
        return descriptor

    def _has_the_name(self, ours: os.stat_result) -> bool:
        try:
            named = os.stat(self._path)
        except FileNotFoundError:  # between two builds' renaming and opening, or deleted
            return False
        return os.path.samestat(ours, named)

    def _rotate(self, descriptor: int) -> None:
        """Rename the file, unless another build does, or has, or the file system has no locks."""
        import fcntl

        try:
            # Closing the descriptor unlocks; whoever rotates closes it next.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if self._has_the_name(os.fstat(descriptor)):
            os.rename(self._path, self._path + ".1")


def prepared_path(environ: Mapping[str, str]) -> str:
    """The ledger's path; its directory is there, and was made for its owner alone. Raises OSError or LedgerFailed."""
    path = ledger_path(environ)
    directory = os.path.dirname(path)
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for each in reversed(missing):
        try:
            os.mkdir(each, 0o700)  # the mode that the XDG specification wants, for the whole way
        except FileExistsError:
            if not os.path.isdir(each):
                raise
    return path
