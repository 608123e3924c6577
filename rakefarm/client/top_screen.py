"""The screen of `rakefarm top`: drawn on the terminal's second page, sorted by keys, left as it was found."""

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rakefarm.client.tables import Sheet
from rakefarm.client.top_rows import ORDERS, host_sheet, occupant_sheet, problem_lines, total_line
from rakefarm.client.watch import Watch
from rakefarm.exitcodes import ExitStatus

LEAST_S = 0.25
KEYS = {name[0]: name for name in ORDERS}
HELP = "sort: " + " ".join(f"[{name[0]}]{name[1:]}" for name in ORDERS) + "  [b]ackwards  [q]uit"


def show_live(watch: Watch, order: str, interval_s: float, stdout: TextIO) -> int:
    """Until the user leaves; answers the exit status."""
    console = Console(file=stdout)
    backwards = False
    with _keys_at_once(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_screen(watch, order, backwards, console), refresh=True)
            key = _next_key(max(LEAST_S, min(interval_s, 1.0)))
            if key in ("q", "Q", "\x03", "\x04", "\x1b"):
                return int(ExitStatus.OK)
            if key == "b":
                backwards = not backwards
            order = KEYS.get(key, order)


def _screen(watch: Watch, order: str, backwards: bool, console: Console) -> RenderableType:
    width, height = console.size
    sights = watch.sights()
    hosts, occupants = host_sheet(sights, order, backwards), occupant_sheet(sights, order, backwards)
    problems = problem_lines(sights)
    left_rows = max(2, height - 9 - len(problems))
    shown_hosts = min(len(hosts.rows), max(1, left_rows * 2 // 3 if occupants.rows else left_rows))
    parts: list[RenderableType] = [
        Text(f"{total_line(sights)}   {time.strftime('%H:%M:%S')}", style="bold", no_wrap=True, overflow="ellipsis"),
        _table(hosts, shown_hosts, order, width),
    ]
    if occupants.rows:
        parts.append(_table(occupants, max(1, left_rows - shown_hosts), "", width))
    parts += [Text(line, style="yellow", no_wrap=True, overflow="ellipsis") for line in problems]
    parts.append(Text(HELP, style="dim"))
    return Group(*parts)


def _table(sheet: Sheet, most_rows: int, order: str, width: int) -> Table:
    """The first rows, and a word about how many there are beyond."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = sheet.fit(width)
    for number in columns:
        name = sheet.heading[number]
        words = number in sheet.words
        table.add_column(
            Text(name, style="bold underline" if name == order else "bold"),
            justify="left" if words else "right",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if words else len(name),
        )
    for row in sheet.rows[:most_rows]:
        table.add_row(*[Text(row[number]) for number in columns])
    if len(sheet.rows) > most_rows:
        table.caption = Text(f"and {len(sheet.rows) - most_rows} more", style="dim")
    return table


def _next_key(timeout_s: float) -> str:
    """The key that is pressed within so many seconds, or nothing."""
    if not select.select([sys.stdin], [], [], timeout_s)[0]:
        return ""
    data = os.read(sys.stdin.fileno(), 64)
    if not data:
        return "q"  # the terminal is gone
    return "" if len(data) > 1 and data[:1] == b"\x1b" else data[:1].decode("ascii", "replace")


@contextlib.contextmanager
def _keys_at_once() -> Iterator[None]:
    """Keys come without Return and are not echoed; however this ends, the terminal is as before."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    ended = signal.signal(signal.SIGTERM, _leave)
    hung_up = signal.signal(signal.SIGHUP, _leave)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, ended)
        signal.signal(signal.SIGHUP, hung_up)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)
