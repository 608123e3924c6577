"""One frame of the live table: a snapshot of the board as lines of fixed columns."""

from collections.abc import Iterator

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from rakefarm.client.board import (
    ActionRow,
    HostRow,
    Snapshot,
    Totals,
    brief_text,
    duration_text,
    price_text,
    size_text,
)
from rakefarm.codes import brief

MAX_ROWS = 20
FEWEST_ROWS = 4
MAX_HOSTS = 6
NARROWEST_HOST_NUMBERS = 23
"""Columns of what is told of a host beside its name, without sizes."""

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
            yield [Segment(self._heading()[: self._width].rstrip(), DIM)]
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

    def _fit_host(self, name: str, width: int) -> str:
        """As `_fit`, but that what is behind the last colon stays whole: hosts may differ in their ports alone."""
        front, colon, port = name.rpartition(":")
        room = width - len(colon + port) - len(self._ellipsis)
        if not colon or cell_len(name) <= width or room < 1:
            return self._fit(name, width)
        return self._fit(f"{set_cell_size(front, room).rstrip()}{self._ellipsis}:{port}", width)

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
        front = f"{row.action:>6} {self._hosts_of(row)} "
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

    def _hosts_of(self, row: ActionRow) -> str:
        width = self._host_width
        if not row.copy_host:
            return self._fit_host(brief_text(row.host), width)
        first = self._fit_host(brief_text(row.host), (width - 1) // 2)
        return self._fit(f"{first.rstrip()} {self._fit_host(brief_text(row.copy_host), width // 2)}", width)

    def _hosts(self) -> Iterator[list[Segment]]:
        hosts = self._snapshot.hosts
        width = max(1, min(self._host_width + 7, self._width - NARROWEST_HOST_NUMBERS))
        heading = f"{'host':<{width}} running   done    busy"
        heading += ("", "     bytes", "      sent  received")[self._size_columns]
        yield [Segment(heading[: self._width].rstrip(), DIM)]
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
        name = self._fit_host(brief_text(host.host), width)
        if host.state == "left out":
            return f"{name} left out: {brief_text(brief(host.reason))}"
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
