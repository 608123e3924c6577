"""Tables for people: by rich on a terminal, in plain columns elsewhere. For commands that print one and end."""

from collections.abc import Mapping, Sequence
from typing import TextIO

from msgspec import Struct, field

from rakefarm.client.view import is_dumb

LEAST_WORDS = 10
"""What a column of words has on a narrow terminal, unless all of it is shorter."""
FIRST_COLUMN = frozenset({0})
GAP = 2
"""Characters between columns."""


class Sheet(Struct):
    """What a table says, safe to display. `words` are the columns that hold words, which may wrap; all others hold
    numbers. `dispensable` are the headings that a narrow terminal does without, the first one first."""

    heading: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    words: frozenset[int] = FIRST_COLUMN
    dispensable: tuple[str, ...] = ()

    def fit(self, width: int) -> list[int]:
        """The columns to show, so that, if that can be, nothing has to wrap in so many characters."""
        shown = list(range(len(self.heading)))
        widths = [max(map(len, column)) for column in zip(self.heading, *self.rows, strict=True)]
        for name in self.dispensable:
            if sum(widths[number] + GAP for number in shown) <= width:
                break
            shown.remove(self.heading.index(name))
        return shown


def draw_tables(sheets: Sequence[Sheet], environ: Mapping[str, str], stdout: TextIO) -> None:
    """Print them, one below the other."""
    draw = _draw_with_rich if stdout.isatty() and not is_dumb(environ) else _draw_columns
    draw(sheets, stdout)


def write_prose(text: str, environ: Mapping[str, str], stdout: TextIO) -> None:
    """Print it, ended; on a terminal it is broken between words."""
    if not stdout.isatty() or is_dumb(environ):
        stdout.write(text + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    Console(file=stdout).print(Text(text))


def _draw_columns(sheets: Sequence[Sheet], stdout: TextIO) -> None:
    for sheet in sheets:
        rows = [sheet.heading, *sheet.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [
                f"{cell:<{width}}" if number in sheet.words else f"{cell:>{width}}"
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            stdout.write("  ".join(cells).rstrip() + "\n")
        stdout.write("\n")


def _draw_with_rich(sheets: Sequence[Sheet], stdout: TextIO) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stdout)
    for sheet in sheets:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        columns = sheet.fit(console.width)
        for number in columns:
            name = sheet.heading[number]
            words = number in sheet.words
            least = min(LEAST_WORDS, max(len(row[number]) for row in [sheet.heading, *sheet.rows])) if words else None
            table.add_column(
                name, justify="left" if words else "right", no_wrap=not words, overflow="fold", min_width=least
            )
        for row in sheet.rows:
            table.add_row(*[Text(row[number]) for number in columns])  # Text: [::1]:6238 is no markup
        console.print(table)
