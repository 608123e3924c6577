"""Plain lines for a build without a live table, and the channels that every view writes to.

    ViewError             what is shown cannot be shown; the text is one line for the user
      OutputFailedError   one of our streams takes no more (a full disk, say)
      OutputClosedError   the reader of one of our streams has gone (a broken pipe)
        TerminalGoneError it was a terminal

A stream that fails raises once, out of the `view(event)` whose bytes were lost (or out of `close()`, when a
refresh thread found it), after every other part of the view has seen the event. Later writes to that
stream are dropped in silence, so that the caller can go on and end the build in order.
"""

import errno
import math
import os
import select
from typing import BinaryIO, ClassVar, TextIO, cast

from rakefarm.client.board import Board
from rakefarm.client.narrator import Narrator, progress_line, summary_lines, warning_lines
from rakefarm.client.summary import Summary
from rakefarm.events import ActionOutput, BuildFinished, BuildStarted, Event
from rakefarm.exitcodes import ExitStatus

Stream = BinaryIO | TextIO | int
MOST_UNTOLD = 256
"""Events that nothing is said of are kept until there are so many, or one that something is said of."""
FIRST_PROGRESS_S = 2.0
PROGRESS_S = 10.0
PROGRESS_SHARE = 0.1
"""A line that tells how far a build is comes after 2, 4 and 8 s, and then after 10 s or a tenth of the time so far:
soon enough for a person, and some fifty lines in an hour's log."""


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

    def columns(self) -> int:
        """How wide the terminal is now; 0: it is none, or doesn't tell."""
        if not self._terminal or self.descriptor is None:
            return 0
        try:
            return os.get_terminal_size(self.descriptor).columns
        except OSError:
            return 0

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
        self._untold: list[Event] = []
        self._started_s = 0.0
        self._progress_due_s = math.inf

    def __call__(self, event: Event) -> None:
        """Show one event."""
        told = self._narrator.tells_of(event) or type(event) in (ActionOutput, BuildStarted)
        if not told and event.time_s < self._progress_due_s:
            # Taken in later, many at once: a small action has the processor's caches to itself for no longer than this.
            self._untold.append(event)
            if len(self._untold) == MOST_UNTOLD:
                self._catch_up()
            return
        self._catch_up()
        self._show(event)

    def _catch_up(self) -> None:
        for event in self._untold:
            self._board.apply(event)
            self._summary.apply(event)
        self._untold.clear()

    def _show(self, event: Event) -> None:
        if isinstance(event, ActionOutput):
            try:
                if self._stdout is not None:
                    self._stdout.write(event.stdout)
            finally:
                self._stderr.write(event.stderr)
            return
        row = self._board.apply(event)
        self._summary.apply(event)
        columns = self._stderr.columns()
        lines = [line.painted(self._colour, columns) for line in self._narrator.lines(event, row)]
        if isinstance(event, BuildStarted):
            self._started_s = event.time_s
            self._progress_due_s = math.inf if self._quiet else event.time_s + FIRST_PROGRESS_S
        elif event.time_s >= self._progress_due_s and not isinstance(event, BuildFinished):
            lines.append(progress_line(self._board.totals(event.time_s)).painted(self._colour, columns))
            elapsed_s = event.time_s - self._started_s
            self._progress_due_s = event.time_s + min(elapsed_s, max(PROGRESS_S, PROGRESS_SHARE * elapsed_s))
        if isinstance(event, BuildFinished):
            ending = [*(() if self._quiet else summary_lines(self._board, self._summary, event))]
            lines += [line.painted(self._colour, columns) for line in (*ending, *warning_lines(self._summary))]
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
