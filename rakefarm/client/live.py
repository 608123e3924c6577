"""The live table on a terminal. The only module that imports rich, and imported only when a table is drawn.

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
from collections.abc import Callable, Iterator

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from rakefarm.client.board import (
    ActionRow,
    Board,
    HostRow,
    Snapshot,
    Totals,
    brief_text,
    duration_text,
    price_text,
    size_text,
)
from rakefarm.client.plain import Channel, Narrator, ViewError, summary_lines
from rakefarm.events import ActionFinished, ActionOutput, BuildFinished, BuildStarted, Event

REFRESH_S = 0.25
GATHER_S = 0.05
PENDING_LIMIT_BYTES = 65536
MAX_ROWS = 20
FEWEST_ROWS = 4
MAX_HOSTS = 6

PLAIN, DIM, BOLD = Style(), Style(dim=True), Style(bold=True)
PHASE_STYLES = {
    "running": Style(color="green"),
    "sending": Style(color="cyan"),
    "receiving": Style(color="cyan"),
    "succeeded": DIM,
    "failed": Style(color="red", bold=True),
    "not_run": Style(color="red", bold=True),
}
PHASE_WORDS = {"succeeded": "done", "not_run": "not run"}


class Frame:
    """A snapshot as lines of fixed columns, each narrower than `width` and fewer than `height`.

    A renderable of its own: rich's Table measures and wraps every cell, which costs several times as much.
    """

    def __init__(self, snapshot: Snapshot, width: int, height: int, rows: int, fancy: bool = True) -> None:
        """`rows` is how many action lines to keep room for; `fancy`: the terminal's encoding is Unicode."""
        self._snapshot = snapshot
        # The last column stays free: a terminal may wrap after it.
        self._width = max(1, width - 1)
        self._fancy = fancy
        self._ellipsis = "…" if fancy else "..."
        self._host_lines, self._row_lines = divide(height, len(snapshot.hosts), rows)
        self._host_width = 10 if width < 72 else 15 if width < 110 else 24
        self._size_columns = 0 if width < 72 else 1 if width < 110 else 2

    def lines(self) -> Iterator[list[Segment]]:
        """The lines, top to bottom."""
        if self._row_lines:
            yield [Segment(self._fit(self._heading(), self._width).rstrip(), DIM)]
            rows = self._snapshot.rows[: self._row_lines]
            for row in rows:
                yield self._row(row)
            for _ in range(self._row_lines - len(rows)):
                yield []
        if self._host_lines:
            yield from self._hosts()
        yield self._bar(self._snapshot.totals)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, line in enumerate(self.lines()):
            if number:
                yield Segment.line()
            yield from line

    def _fit(self, text: str, width: int) -> str:
        """Exactly `width` cells: padded, or its middle left out, since the file is often named last."""
        size = len(text) if text.isascii() else cell_len(text)
        if size <= width:
            return text + " " * (width - size)
        tail_width = (width - 1) * 3 // 5
        if width < 12:
            return set_cell_size(set_cell_size(text, width - 1) + self._ellipsis[0], width)
        head = set_cell_size(text, width - tail_width - len(self._ellipsis))
        tail = "".join(reversed(chop_cells(text[::-1], tail_width)[0]))
        return set_cell_size(f"{head}{self._ellipsis}{tail}", width)

    def _heading(self) -> str:
        sizes = ("", "    bytes ", "     sent  received ")[self._size_columns]
        return f"action {'host':<{self._host_width}} phase      price elapsed {sizes}command"

    def _row(self, row: ActionRow) -> list[Segment]:
        style = PHASE_STYLES.get(row.phase, PLAIN)
        rest_style = DIM if row.phase == "succeeded" else PLAIN
        phase = self._fit(brief_text(PHASE_WORDS.get(row.phase, row.phase)), 9)
        sent, received = row.bytes_sent, row.bytes_received
        sizes = ((), (sent + received,), (sent, received))[self._size_columns]
        numbers = f"{price_text(row.price):>6} {duration_text(row.elapsed_at(self._snapshot.now_s)):>7} "
        numbers += "".join(f"{size_text(size) if size else '':>9} " for size in sizes)
        front = f"{row.action:>6} {self._fit(brief_text(row.host), self._host_width)} "
        room = max(0, self._width - len(front) - len(phase) - 1 - len(numbers))
        # A host's name may hold wide characters, but its column has a fixed number of cells.
        room += len(front) - cell_len(front)
        command = self._fit(brief_text(row.command), room).rstrip() if room else ""
        line = [
            Segment(front, rest_style),
            Segment(f"{phase} ", style),
            Segment(numbers + command, rest_style),
        ]
        return Segment.adjust_line_length(line, self._width, pad=False)

    def _hosts(self) -> Iterator[list[Segment]]:
        hosts = self._snapshot.hosts
        width = self._host_width + 7
        heading = f"{'host':<{width}} running   done    busy"
        heading += ("", "     bytes", "      sent  received")[self._size_columns]
        yield [Segment(self._fit(heading, self._width).rstrip(), DIM)]
        shown = len(hosts)
        if shown > min(self._host_lines, MAX_HOSTS):
            shown = min(self._host_lines - 1, MAX_HOSTS)
        for host in hosts[:shown]:
            yield [Segment(self._fit(self._host(host, width), self._width).rstrip(), self._host_style(host))]
        if shown < len(hosts):
            others = hosts[shown:]
            left_out = sum(host.state == "left out" for host in others)
            text = f"+{len(others)} more" if shown else f"{len(others)} hosts"
            text += f": {sum(host.running for host in others)} running"
            text += f", {left_out} left out" if left_out else ""
            yield [Segment(self._fit(text, self._width).rstrip(), DIM)]

    @staticmethod
    def _host_style(host: HostRow) -> Style:
        return PHASE_STYLES["failed"] if host.state == "left out" else PLAIN if host.state == "ready" else DIM

    def _host(self, host: HostRow, width: int) -> str:
        name = self._fit(brief_text(host.host), width)
        if host.state == "left out":
            return f"{name} left out: {brief_text(host.reason)}"
        running = f"{host.running}/{host.slots}" if host.slots else str(host.running)
        text = f"{name} {running:>7} {host.done:>6} {duration_text(host.busy_s):>7}"
        sizes: tuple[int, ...] = (host.bytes_sent, host.bytes_received)
        sizes = ((), (sum(sizes),), sizes)[self._size_columns]
        return text + "".join(f" {size_text(size):>9}" for size in sizes)

    def _bar(self, totals: Totals) -> list[Segment]:
        count = f" {totals.done}/{totals.actions}"
        failed = f", {totals.failed + totals.not_run} failed" if totals.failed + totals.not_run else ""
        rest = f", {duration_text(totals.elapsed_s)}"
        if totals.remaining_s is not None:
            left_s = max(1, round(totals.remaining_s))
            rest += f", about {f'{left_s} s' if left_s < 60 else duration_text(left_s)} left"
        more = [f", {totals.running} running", f", {totals.waiting} waiting"]
        if totals.sets > 1:
            more.append(f", set {totals.set_number}/{totals.sets}")
        for part in more:
            if len(count) + len(failed) + len(rest) + len(part) + 12 <= self._width:
                rest += part
        width = max(0, min(40, self._width - len(count) - len(failed) - len(rest)))
        full = width * totals.done // max(1, totals.actions)
        done_mark, left_mark = ("━", "─") if self._fancy else ("#", "-")
        line = [
            Segment(done_mark * min(full, width), PHASE_STYLES["failed" if failed else "running"]),
            Segment(left_mark * (width - full), DIM),
            Segment(count, BOLD),
            Segment(failed, PHASE_STYLES["failed"]),
            Segment(rest, PLAIN),
        ]
        return Segment.adjust_line_length(line, self._width, pad=False)


def drawing(frame: list[bytes]) -> bytes:
    """The frame as one write, from the cursor's line down and back to it; it replaces what stood there."""
    # First of all, the colours that an action's output may have left on.
    text = b"\x1b[?25l\x1b[0m\r" + b"\x1b[K\r\n".join(frame) + b"\x1b[K\x1b[J\r"
    up = b"\x1b[%dA" % (len(frame) - 1) if len(frame) > 1 else b""
    return text + up + b"\x1b[?25h"


def divide(height: int, hosts: int, rows: int) -> tuple[int, int]:
    """Lines for hosts and for actions, without their headings, so that with the bar all is below `height`."""
    left = height - 2  # the bar, and one line of what is above
    host_lines = min(hosts, MAX_HOSTS + 1, max(1, (left - 2) // 3)) if left >= 5 else 0
    if host_lines:
        left -= host_lines + 1
    return host_lines, max(0, min(rows, MAX_ROWS, left - 1))


class LiveView:
    """The table on stderr, actions' output above it. Safe from any thread.

    Raises as `rakefarm.client.plain` says; what the refresh thread could not write is raised by the next
    call. `clock` gives monotonic seconds. Without `threaded` nothing is drawn but by `refresh`.
    """

    def __init__(
        self,
        stdout: Channel | None,
        stderr: Channel,
        *,
        verbose: int = 0,
        colour: bool = True,
        clock: Callable[[], float] = time.monotonic,
        threaded: bool = True,
    ) -> None:
        """Without a `stdout` the actions' standard output is shown elsewhere."""
        self._stdout = stdout
        self._stderr = stderr
        self._one_place = stdout is not None and stdout.same_place(stderr)
        self._colour = colour
        self._clock = clock
        self._fancy = stderr.encoding.lower().replace("-", "").startswith("utf")
        self._narrator = Narrator(verbose)
        self._board = Board()
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
            if isinstance(event, ActionOutput):
                self._output(event)
            else:
                if isinstance(event, ActionFinished):
                    self._open_action = None
                for line in self._narrator.lines(event, row):
                    self._say(line.painted(self._colour))
                if isinstance(event, BuildStarted):
                    self._start()
                elif isinstance(event, BuildFinished):
                    self._drawing = False
                    for line in summary_lines(self._board, event):
                        self._say(line.painted(self._colour))
            if (self._pending or self._drawn) and (
                not self._drawing
                or self._pending_bytes > PENDING_LIMIT_BYTES
                or (self._pending and self._clock() - self._written_s >= GATHER_S)
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
