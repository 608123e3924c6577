"""Chooses how a build is shown, and passes each event to every part that was chosen.

    --progress auto   the live table when stderr is a terminal that can draw one, else plain lines
               live   the same without asking CI; a stderr that is no terminal, or a dumb one, gets lines
               plain  lines
               none   only warnings, errors and failures
    --json            lines of JSON on stdout, which then carries nothing else
    --json=FILE       lines of JSON in a file, beside whatever is shown
    --trace FILE      a Chrome trace
    --report FILE     a page of HTML

CI and TERM=dumb mean plain lines. NO_COLOR takes only the colour; FORCE_COLOR gives colour where no terminal
is; of both NO_COLOR wins; `--color` always or never beats both. Where there is no colour, colours are taken out of what
actions write to standard error, too; their standard output is never changed.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rakefarm.client.board import safe_text
from rakefarm.client.colours import Part, Uncoloured
from rakefarm.client.plain import Channel, OutputClosedError, PlainView, Stream, ViewError
from rakefarm.config import ConfigError
from rakefarm.events import Event

__all__ = ["OutputClosedError", "View", "ViewError", "open_view"]

JSON_ON_STDOUT = "-"
"""The `json_target` of `--json` without a file."""


class View:
    """A consumer of events and a context manager. Calls must come one at a time, as `Stream` sees to.

    A stream that fails raises `ViewError` (`OutputClosedError` for a broken pipe) once: out of the call whose
    bytes were lost, or out of `close()`. Every part has seen the event by then, and the view stays usable.
    """

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts

    def __call__(self, event: Event) -> None:
        """Show one event."""
        first: ViewError | None = None
        for part in self._parts:
            try:
                part(event)
            except ViewError as error:
                first = first or error
        if first is not None:
            raise first

    def close(self) -> None:
        """Leave the terminal as it was found and close what was opened. Again does no harm."""
        first: ViewError | None = None
        for part in self._parts:
            try:
                part.close()
            except ViewError as error:
                first = first or error
        if first is not None:
            raise first

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of everything that shows a build."""
    parser.add_argument("--progress", choices=("auto", "live", "plain", "none"), default="auto", help="how to show it")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="when to use colour")
    parser.add_argument("--trace", metavar="FILE", help="write a Chrome trace, for ui.perfetto.dev")
    parser.add_argument("--report", metavar="FILE", help="write a page of HTML about the build")


def open_view(
    progress: str,
    color: str,
    verbose: int,
    json_target: str | None,
    environ: Mapping[str, str],
    stdout: Stream,
    stderr: Stream,
    *,
    trace: str | None = None,
    report: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    pace: float = 1.0,
) -> View:
    """The view for these options; see the module's head. `json_target` is None, "-" for stdout, or a file.

    The streams are file descriptors or file objects; an object without a descriptor needs a binary `write`
    or a `buffer`. They are never closed. `clock` is that of the events (seconds), and runs `pace` times as fast as the
    real one. Raises `ViewError` when a file cannot be opened, or be written at its place.
    """
    assert progress in ("auto", "live", "plain", "none"), progress
    assert color in ("auto", "always", "never"), color
    out, err = Channel("standard output", stdout), Channel("standard error", stderr)
    parts: list[Part] = []
    screen_out: Channel | None = out
    if json_target is not None:
        from rakefarm.client.jsonlines import JsonLines

        parts.append(JsonLines(out) if json_target == JSON_ON_STDOUT else JsonLines.open(json_target))
        screen_out = None if json_target == JSON_ON_STDOUT else out
    if trace is not None:
        from rakefarm.client.trace import Trace

        parts.append(Trace(trace))
    if report is not None:
        from rakefarm.client.page import Page

        parts.append(Page(report))
    colour = wants_colour(color, environ, err)
    # Lines of JSON cannot share a terminal with a table.
    drawable = screen_out is not None or not out.same_place(err)
    if drawable and wants_table(progress, environ, err):
        from rakefarm.client.live import LiveView  # rich takes 50 ms to import: only for a table

        shown: Part = LiveView(screen_out, err, verbose=verbose, colour=colour, clock=clock, pace=pace)
    else:
        quiet = progress == "none"
        shown = PlainView(screen_out, err, verbose=verbose, quiet=quiet, colour=colour)
    parts.append(shown if colour else Uncoloured(shown))
    return View(tuple(parts))


def check_written(options: argparse.Namespace, read: str) -> None:
    """Raises ConfigError when a file that is written would overwrite what is `read`, or another one."""
    written: dict[str, str] = {}
    for option in ("--json", "--trace", "--report"):
        name = getattr(options, option[2:], None)
        if name is None or (option == "--json" and name == JSON_ON_STDOUT):
            continue
        if _is_same_file(name, read):
            raise ConfigError(f"{option} {safe_text(name)}: that is {safe_text(read)} itself, which it would overwrite")
        other = written.setdefault(os.path.abspath(name), option)
        if other != option:
            raise ConfigError(f"{option} {safe_text(name)}: that is the file of {other}, too")


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is not there, or can't be
        return False


def is_dumb(environ: Mapping[str, str]) -> bool:
    """The terminal cannot move its cursor."""
    return environ.get("TERM", "").lower() in ("dumb", "unknown")


def wants_table(progress: str, environ: Mapping[str, str], stderr: Channel) -> bool:
    """Whether to draw a live table."""
    if progress not in ("auto", "live") or not stderr.is_terminal() or is_dumb(environ):
        return False
    return progress == "live" or environ.get("CI", "").lower() in ("", "0", "false")


def wants_colour(color: str, environ: Mapping[str, str], stderr: Channel) -> bool:
    """Whether what we say ourselves is coloured, and compilers may colour what they say. An empty variable counts as
    absent, as no-color.org says."""
    if color != "auto":
        return color == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stderr.is_terminal() and not is_dumb(environ)
