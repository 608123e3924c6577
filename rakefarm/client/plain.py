"""Plain lines for a build without a live table, and what every view shares: channels and wording.

    ViewError             what is shown cannot be shown; the text is one line for the user
      OutputFailedError   one of our streams takes no more (a full disk, say)
      OutputClosedError   the reader of one of our streams has gone (a broken pipe)
        TerminalGoneError it was a terminal

A stream that fails raises once, out of the `view(event)` whose bytes were lost (or out of `close()`, when a
refresh thread found it), after every other part of the view has seen the event. Later writes to that
stream are dropped in silence, so that the caller can go on and end the build in order.
"""

import errno
import os
import select
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import BinaryIO, ClassVar, TextIO, cast

from msgspec import Struct

from rakefarm.client.board import (
    ActionRow,
    Board,
    HostRow,
    duration_text,
    price_text,
    safe_text,
    size_text,
)
from rakefarm.client.summary import Summary
from rakefarm.events import (
    ActionFinished,
    ActionOutput,
    ActionPlaced,
    ActionRetried,
    BuildFinished,
    CopyEnded,
    Event,
    HostLeftOut,
    Notice,
    QuoteReceived,
)
from rakefarm.exitcodes import ExitStatus

Stream = BinaryIO | TextIO | int
NOT_RUN_LINES = 3
"""Actions that are named when one reason (the whole farm is gone, say) keeps many from being run."""
COLOUR_CODES = {"bold": "\x1b[1m", "red": "\x1b[1;31m", "yellow": "\x1b[33m", "green": "\x1b[32m"}


class ViewError(Exception):
    """What is to be shown cannot be; the text is one line for the user. `status` is what to end with."""

    status: ClassVar[ExitStatus] = ExitStatus.USAGE


class OutputClosedError(ViewError):
    """Whoever read one of our streams has gone: nobody sees the rest."""

    status = ExitStatus.OUTPUT_CLOSED


class TerminalGoneError(OutputClosedError):
    """The terminal that we wrote to was closed."""

    status = ExitStatus.HUNG_UP


class OutputFailedError(ViewError):
    """One of our streams takes no more: its disk is full, say."""

    status = ExitStatus.ACTION_FAILED


class Channel:
    """Where bytes leave us: a file descriptor written without a buffer, or an object with `write`.

    `write` returns when all bytes are out, also on a descriptor that somebody set to non-blocking.
    """

    def __init__(self, name: str, stream: Stream) -> None:
        self.name = name
        self.mid_line = False
        """The last byte written was not a line's end."""
        self._failed = False
        self._stream: BinaryIO | None = None
        self.encoding = "utf-8"
        self.descriptor: int | None = None
        if isinstance(stream, int):
            self.descriptor = stream
            self._terminal = os.isatty(stream)
            return
        self._terminal = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.flush()  # what was printed before us comes out before us
        try:
            self.descriptor = stream.fileno()
        except (AttributeError, OSError):
            # TextIO declares `buffer`; objects like io.StringIO do not have one and are not for us.
            self._stream = cast(BinaryIO, getattr(stream, "buffer", stream))
        else:
            self._terminal = os.isatty(self.descriptor)

    def is_terminal(self) -> bool:
        """A person may be looking."""
        return self._terminal

    def same_place(self, other: "Channel") -> bool:
        """Both lead to one terminal, pipe or file, so that their bytes follow one another."""
        if self.descriptor is None or other.descriptor is None:
            return self._stream is other._stream
        mine, theirs = os.fstat(self.descriptor), os.fstat(other.descriptor)
        if (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino):
            return True
        # /dev/tty is another name for a terminal that has its own.
        names = {os.ttyname(c) for c in (self.descriptor, other.descriptor) if os.isatty(c)}
        return len(names) == 2 and "/dev/tty" in names

    def encode(self, text: str) -> bytes:
        """The text in this stream's encoding; what it cannot hold is escaped."""
        return text.encode(self.encoding, "backslashreplace")

    def write(self, data: bytes) -> None:
        """Write all of it, or raise `OutputClosedError` or `OutputFailedError` the first time that fails."""
        if self._failed or not data:
            return
        self.mid_line = data[-1] != 0x0A
        try:
            if self._stream is not None:
                self._stream.write(data)
                self._stream.flush()
            else:
                self._write_all(data)
        except BrokenPipeError as error:
            self._failed = True
            raise OutputClosedError(f"{self.name} was closed by its reader") from error
        except OSError as error:
            self._failed = True
            if error.errno == errno.EIO and self._terminal:
                raise TerminalGoneError(f"{self.name} was a terminal that is closed") from error
            raise OutputFailedError(f"cannot write {self.name}: {error.strerror}") from error

    def _write_all(self, data: bytes) -> None:
        assert self.descriptor is not None
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.descriptor, view) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.descriptor, select.POLLOUT)
                poll.poll()


class Line(Struct, frozen=True):
    """One line for the user: a label that may be coloured, and the rest. All of it is safe to display."""

    text: str
    label: str = ""
    colour: str = ""
    prefix: str = ""

    def painted(self, colour: bool) -> str:
        """The line with its end, coloured or not."""
        label = self.label
        if colour and label and self.colour:
            label = f"{COLOUR_CODES[self.colour]}{label}\x1b[0m"
        return f"{self.prefix}{label}{' ' if label and self.text else ''}{self.text}\n"


class Narrator:
    """Events in words. `verbose` 1 adds a line per placed and retried action and per copy, 2 one per quote;
    `quiet` leaves only warnings, errors and failures."""

    def __init__(self, verbose: int = 0, quiet: bool = False) -> None:
        self._verbose = 0 if quiet else verbose
        self._quiet = quiet
        self._not_run: Counter[str] = Counter()  # by reason
        # Most events of a build are those that nothing is said of, and they must cost next to nothing.
        self._told: set[type[Event]] = {ActionFinished, HostLeftOut, Notice, BuildFinished}
        self._told |= {ActionPlaced, ActionRetried, CopyEnded} if self._verbose >= 1 else set()
        self._told |= {QuoteReceived} if self._verbose >= 2 else set()

    def lines(self, event: Event, row: ActionRow | None) -> Iterable[Line]:
        """What to say about the event; `row` is what the board's `apply` returned for it."""
        return self._lines(event, row) if type(event) in self._told else ()

    def _lines(self, event: Event, row: ActionRow | None) -> Iterator[Line]:
        match event:
            case ActionFinished(outcome="failed"):
                yield Line(self._ending(event, row), "failed:", "red")
            case ActionFinished(outcome="not_run"):
                self._not_run[event.detail] += 1
                if self._not_run[event.detail] <= NOT_RUN_LINES:
                    yield Line(self._ending(event, row), "not run:", "red")
            case BuildFinished():
                for reason, count in self._not_run.items():
                    if count > NOT_RUN_LINES:
                        yield Line(
                            f"{count - NOT_RUN_LINES} more for the same reason: {safe_text(reason)}", "not run:", "red"
                        )
            case HostLeftOut():
                text = f"{safe_text(event.host)} left out: {safe_text(event.reason)}"
                yield Line(text, "warning:", "yellow", "rakefarm: ")
            case Notice(level="info"):
                if not self._quiet:
                    yield Line(f"rakefarm: {safe_text(event.text)}")
            case Notice():
                colour = "red" if event.level == "error" else "yellow"
                yield Line(safe_text(event.text), f"{safe_text(event.level)}:", colour, "rakefarm: ")
            case ActionPlaced():
                again = f", attempt {event.attempt}" if event.attempt > 1 and not event.backup else ""
                copy = "a copy " if event.backup else ""
                yield Line(f"{self._who(event.action, row)}: {copy}on {_terms_of(event)}{again}")
            case CopyEnded():
                reason = f"{safe_text(event.host)}: {safe_text(event.reason)}"
                yield Line(f"{self._who(event.action, row)}: {reason}", "copy:", "yellow")
            case ActionRetried():
                reason = f"{safe_text(event.host)}: {safe_text(event.reason)}"
                yield Line(f"{self._who(event.action, row)}: {reason}", "again:", "yellow")
            case QuoteReceived():
                answer = f"declined: {safe_text(event.reason)}"
                if event.price is not None:
                    answer = f"asks {price_text(event.price)}"
                yield Line(f"{self._who(event.action, row)}: {safe_text(event.host)} {answer}")

    @staticmethod
    def _who(action: int, row: ActionRow | None) -> str:
        # An action that was never queued (its required file is missing, say) has no command to show.
        if row is None or not row.command:
            return f"action {action}"
        return f"set '{safe_text(row.set_name)}', line {row.line}: {safe_text(row.command)}"

    def _ending(self, event: ActionFinished, row: ActionRow | None) -> str:
        where = ""
        if event.outcome == "failed" and event.host:
            where = " (local)" if event.host == "local" else f" on {safe_text(event.host)}"
        return f"{self._who(event.action, row)}: {safe_text(event.detail) or event.outcome}{where}"


def _terms_of(event: ActionPlaced) -> str:
    """Where an action was placed, at what price, what that promises, and who would have been next."""
    text = safe_text(event.host)
    if event.price is not None:
        text += f" at {price_text(event.price)}"
    if event.seconds is not None:
        text += f", {duration_text(event.seconds)} promised"
    if event.runner_up:
        text += f", before {safe_text(event.runner_up)} at {price_text(event.runner_up_price)}"
    return text


def counted(count: int, noun: str) -> str:
    """ "1 action", "2 actions"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def summary_lines(board: Board, summary: Summary, event: BuildFinished) -> Iterator[Line]:
    """How it all ended: a line for the build, what it came to, and a line for each host that ran something or was left
    out."""
    snapshot = board.snapshot(event.time_s, 0)
    parts = [counted(snapshot.totals.done, "action")]
    for count, word in (
        (snapshot.totals.failed, "failed"),
        (snapshot.totals.not_run, "not run"),
        (event.stopped, "stopped"),
        (event.not_started, "not started"),
    ):
        if count:
            parts.append(f"{count} {word}")
    text = f"{', '.join(parts)} in {duration_text(event.elapsed_s)}"
    if event.interrupted:
        yield Line(text, "interrupted:", "red", "rakefarm: ")
    else:
        yield Line(f"rakefarm: {text}")
    for line in summary.lines(event):
        yield Line(f"  {line}")
    hosts = [host for host in snapshot.hosts if host.done or host.state == "left out"]
    name_width = min(40, max((len(safe_text(host.host)) for host in hosts), default=0))
    for host in hosts:
        yield Line(f"  {safe_text(host.host):<{name_width}}  {host_text(host)}")


def warning_lines(summary: Summary) -> Iterator[Line]:
    """What nobody should miss of a build that has ended."""
    if nothing := summary.nothing_ran_remotely:
        yield Line("", nothing, "bold", "rakefarm: ")


def host_text(host: HostRow) -> str:
    """What a host did, in columns."""
    left_out = f"left out: {safe_text(host.reason)}" if host.state == "left out" else ""
    if not host.done:
        return left_out
    text = f"{counted(host.done, 'action'):>13}  {duration_text(host.busy_s):>7} busy"
    if host.bytes_sent or host.bytes_received:
        text += f"  {size_text(host.bytes_sent):>9} sent  {size_text(host.bytes_received):>9} back"
    return f"{text}  {left_out}".rstrip()


class PlainView:
    """Lines on stderr, actions' output unchanged on both streams. Raises as the module's head says."""

    def __init__(
        self,
        stdout: Channel | None,
        stderr: Channel,
        *,
        verbose: int = 0,
        quiet: bool = False,
        colour: bool = False,
    ) -> None:
        """Without a `stdout` the actions' standard output is shown elsewhere."""
        self._stdout = stdout
        self._stderr = stderr
        self._one_place = stdout is not None and stdout.same_place(stderr)
        self._narrator = Narrator(verbose, quiet)
        self._quiet = quiet
        self._colour = colour
        self._board = Board()
        self._summary = Summary()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, ActionOutput):
            try:
                if self._stdout is not None:
                    self._stdout.write(event.stdout)
            finally:
                self._stderr.write(event.stderr)
            return
        row = self._board.apply(event)
        self._summary.apply(event)
        lines = [line.painted(self._colour) for line in self._narrator.lines(event, row)]
        if isinstance(event, BuildFinished):
            ending = [*(() if self._quiet else summary_lines(self._board, self._summary, event))]
            lines += [line.painted(self._colour) for line in (*ending, *warning_lines(self._summary))]
        if lines:
            self._say("".join(lines))

    def _say(self, text: str) -> None:
        """Our own lines begin at the start of a line, also after output that ended in the middle of one."""
        mid_line = self._stderr.mid_line
        if self._one_place and self._stdout is not None:
            mid_line = mid_line or self._stdout.mid_line
            self._stdout.mid_line = False
        self._stderr.write(self._stderr.encode("\n" + text if mid_line else text))

    def close(self) -> None:
        """Nothing is held back, so there is nothing to do."""
