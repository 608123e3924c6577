"""The live table on a terminal. Only this module and `frame` import rich, and only when a table is drawn.

The table is the last few lines of the terminal, and the cursor rests at its top left. So whatever becomes of
the lines below when the window changes, erasing from the cursor on erases the table, all of it and nothing
else. Failures, notices and actions' bytes go above it: erase, write, draw again below. So that a burst of
output neither flickers nor waits for a terminal, such writes are gathered and go out together:

    events ──► board, pending ──► at once if the last write is 50 ms old, with the last frame again below
                          └─────► else with the next frame: a thread renders one 4 times a second

The cursor is hidden only within a single write and nothing else of the terminal is changed. However we end,
killed and stopped included, there is nothing left to restore.
"""

import io
import os
import threading
import time
from collections.abc import Callable

from rich.console import Console

from rakefarm.client.board import Board
from rakefarm.client.frame import FEWEST_ROWS, MAX_ROWS, Frame, drawing
from rakefarm.client.narrator import Narrator, summary_lines, warning_lines
from rakefarm.client.plain import Channel, ViewError
from rakefarm.client.summary import Summary
from rakefarm.events import ActionFinished, ActionOutput, BuildFinished, BuildStarted, Event

REFRESH_S = 0.25
GATHER_S = 0.05
PENDING_LIMIT_BYTES = 65536


class LiveView:
    """The table on stderr, actions' output above it. Safe from any thread.

    Raises as `rakefarm.client.plain` says; what the refresh thread could not write is raised by the next
    call. `clock` gives monotonic seconds, as the events' are. Without `threaded` nothing is drawn but by `refresh`.
    """

    def __init__(
        self,
        stdout: Channel | None,
        stderr: Channel,
        *,
        verbose: int = 0,
        colour: bool = True,
        clock: Callable[[], float] = time.monotonic,
        pace: float = 1.0,
        threaded: bool = True,
    ) -> None:
        """Without a `stdout` the actions' standard output is shown elsewhere. The clock is `pace` times as fast as the
        real one."""
        self._stdout = stdout
        self._stderr = stderr
        self._one_place = stdout is not None and stdout.same_place(stderr)
        self._colour = colour
        self._clock = clock
        self._gather_s = GATHER_S * pace
        self._fancy = stderr.encoding.lower().replace("-", "").startswith("utf")
        self._narrator = Narrator(verbose)
        self._board = Board()
        self._summary = Summary()
        self._lock = threading.Lock()
        self._failure: ViewError | None = None
        self._console = Console(
            file=io.StringIO(),
            force_terminal=True,
            color_system="standard" if colour else None,
            no_color=not colour,
            width=80,
            legacy_windows=False,
        )
        self._most_rows = FEWEST_ROWS
        self._drawing = False
        self._frame: list[bytes] = []
        self._frame_size = (0, 0)
        self._drawn: list[bytes] = []
        self._pending: list[tuple[Channel, bytearray]] = []
        self._pending_bytes = 0
        self._mid_line = False
        """What was written above the table does not end a line."""
        self._open_action: int | None = None
        """The action whose output may go on: until it ends, its half line is not to be cut by a table."""
        self._written_s = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live table", daemon=True) if threaded else None

    def __call__(self, event: Event) -> None:
        """Take one event in. What must not wait is written before this returns, the table is not."""
        if isinstance(event, ActionOutput) and self._stdout is not None and not self._one_place:
            self._write(self._stdout, event.stdout)
        with self._lock:
            row = self._board.apply(event)
            self._summary.apply(event)
            if isinstance(event, ActionOutput):
                self._output(event)
            else:
                if isinstance(event, ActionFinished):
                    self._open_action = None
                for line in self._narrator.lines(event, row):
                    self._say(line.painted(self._colour, self._terminal_size()[0]))
                if isinstance(event, BuildStarted):
                    self._start()
                elif isinstance(event, BuildFinished):
                    self._drawing = False
                    for line in (*summary_lines(self._board, self._summary, event), *warning_lines(self._summary)):
                        self._say(line.painted(self._colour, self._terminal_size()[0]))
            if (self._pending or self._drawn) and (
                not self._drawing
                or self._pending_bytes > PENDING_LIMIT_BYTES
                or (self._pending and self._clock() - self._written_s >= self._gather_s)
            ):
                self._flush()
        self._raise_failure()

    def refresh(self) -> None:
        """Render what the board shows now and draw it, with whatever waits to be written above it."""
        with self._lock:
            if not self._drawing:
                return
            size = self._terminal_size()
            self._most_rows = min(MAX_ROWS, max(self._most_rows, self._board.open_rows()))
            snapshot = self._board.snapshot(self._clock(), self._most_rows)
        # Rendering takes milliseconds: events need not wait for it.
        frame = Frame(snapshot, size[0], size[1], self._most_rows, self._fancy)
        with self._console.capture() as captured:
            self._console.print(frame, end="", crop=False, soft_wrap=True)
        text = captured.get()
        with self._lock:
            self._frame = [self._stderr.encode(line) for line in text.split("\n")]
            self._frame_size = size
            if self._drawing:
                self._flush()

    def close(self) -> None:
        """Take the table away, write what waits, end the thread. Again does no harm."""
        with self._lock:
            self._drawing = False
            self._open_action = None
            self._flush()
        self._stop.set()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()
        self._raise_failure()

    def _start(self) -> None:
        self._drawing = True
        if self._thread is not None and self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(REFRESH_S):
            self.refresh()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _write(self, channel: Channel, data: bytes) -> None:
        try:
            channel.write(data)
        except ViewError as error:
            self._failure = self._failure or error

    def _append(self, channel: Channel, data: bytes) -> None:
        """Let the bytes wait for the next flush, in order."""
        if not data:
            return
        self._mid_line = data[-1] != 0x0A
        self._pending_bytes += len(data)
        if self._pending and self._pending[-1][0] is channel:
            self._pending[-1][1].extend(data)
        else:
            self._pending.append((channel, bytearray(data)))

    def _begin_line(self) -> None:
        if self._mid_line:
            self._append(self._stderr, b"\r\n")

    def _say(self, text: str) -> None:
        self._begin_line()
        self._open_action = None
        # Our own lines come out straight on a terminal in raw mode, too.
        self._append(self._stderr, self._stderr.encode(text.replace("\n", "\r\n")))

    def _output(self, event: ActionOutput) -> None:
        if self._open_action != event.action:
            self._begin_line()
            self._open_action = event.action
        if self._one_place and self._stdout is not None:
            self._append(self._stdout, event.stdout)
        self._append(self._stderr, event.stderr)

    def _terminal_size(self) -> tuple[int, int]:
        """Columns and lines, asked anew each time: so no signal is needed to notice a resize."""
        assert self._stderr.descriptor is not None
        try:
            columns, lines = os.get_terminal_size(self._stderr.descriptor)
        except OSError:
            columns = lines = 0
        return columns or 80, lines or 24

    def _in_foreground(self) -> bool:
        """Stopped and put in the background, we must not draw over the shell."""
        assert self._stderr.descriptor is not None
        try:
            return os.tcgetpgrp(self._stderr.descriptor) == os.getpgrp()
        except OSError:  # not our controlling terminal
            return True

    def _flush(self) -> None:
        """Write what waits above the table and draw the last frame below it. The lock is held."""
        size, foreground = self._terminal_size(), self._in_foreground()
        if not foreground:
            self._drawn = []  # what the shell has written since is not ours to erase
        held = self._mid_line and self._open_action is not None
        wanted = self._drawing and not held and self._frame_size == size and foreground
        frame = self._frame if wanted else []
        if self._pending or frame != self._drawn:
            if wanted:
                self._begin_line()
            if self._drawn and (self._pending or not frame):
                self._pending.insert(0, (self._stderr, bytearray(b"\r\x1b[J")))
            if frame:
                self._pending.append((self._stderr, bytearray(drawing(frame))))
            self._drawn = frame
            self._write_pending()
            self._written_s = self._clock()

    def _write_pending(self) -> None:
        """As few writes as there are changes of stream: nothing else is seen between them."""
        joined: list[tuple[Channel, bytearray]] = []
        for channel, data in self._pending:
            if joined and joined[-1][0] is channel:
                joined[-1][1].extend(data)
            else:
                joined.append((channel, data))
        self._pending, self._pending_bytes = [], 0
        for channel, data in joined:
            self._write(channel, bytes(data))
