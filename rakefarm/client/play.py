"""`rakefarm play EVENTS`: shows a build once more, from the events that `--json=FILE` wrote, by the same view."""

import argparse
import math
import time
from collections.abc import Mapping
from typing import BinaryIO, TextIO

from rakefarm.client import view
from rakefarm.client.board import safe_text
from rakefarm.client.recorded import NoEvent, read_events
from rakefarm.config import ConfigError
from rakefarm.events import Event
from rakefarm.exitcodes import ExitStatus

AT_ONCE = "max"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `rakefarm play`."""
    parser.add_argument("events", metavar="EVENTS", help="what --json=FILE wrote")
    parser.add_argument("--speed", default="1", metavar="N", help=f"N times as fast, or {AT_ONCE}: without waiting")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say where each action ran, and why")
    view.add_arguments(parser)


def play(options: argparse.Namespace, environ: Mapping[str, str], stdout: TextIO, stderr: TextIO) -> int:
    """Show it all; answers the exit status: 0 when everything was shown, however the build had ended. Raises
    ConfigError for a file that can't be read, or is no record of a whole build, and ViewError."""
    player = _Player(_speed(options.speed))
    view.check_written(options, options.events)
    try:
        with _open(options.events) as file, _open_view(player, options, environ, stdout, stderr) as shown:
            for event in read_events(file):
                player.wait_for(event)
                shown(event)
    except NoEvent as error:
        raise ConfigError(f"{safe_text(options.events)}: {error}") from error
    return int(ExitStatus.OK)


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{safe_text(path)}: {reason}") from error


def _speed(text: str) -> float:
    if text == AT_ONCE:
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0.001 <= speed <= 1e6:
        raise ConfigError(f"--speed {text}: not a number from 0.001 to 1000000, nor {AT_ONCE}")
    return speed


class _Player:
    """Gives each event its time, and the view the time between two of them."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._begun_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s = 0.0

    def now(self) -> float:
        """The time in the build, in seconds of its own clock."""
        if self._first_s is None or math.isinf(self.speed):
            return self._last_s
        return self._first_s + (time.monotonic() - self._begun_s) * self.speed

    def wait_for(self, event: Event) -> None:
        """Until it is the event's turn."""
        self._last_s = event.time_s
        if self._first_s is None:
            self._first_s, self._begun_s = event.time_s, time.monotonic()
        wait_s = (event.time_s - self.now()) / self.speed
        while wait_s > 0.0:
            time.sleep(min(wait_s, 3600.0))
            wait_s = (event.time_s - self.now()) / self.speed


def _open_view(
    player: _Player, options: argparse.Namespace, environ: Mapping[str, str], stdout: TextIO, stderr: TextIO
) -> view.View:
    return view.open_view(
        options.progress,
        options.color,
        options.verbose,
        None,
        environ,
        stdout,
        stderr,
        trace=options.trace,
        report=options.report,
        clock=player.now,
        pace=1.0 if math.isinf(player.speed) else player.speed,
    )
