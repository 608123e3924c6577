"""Signals that end a command of the lab: raised where the main thread is, so that all that was begun is ended."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from rakefarm.exitcodes import ExitStatus


class Told(BaseException):
    """A signal has come, at whatever we were; not an Exception, since it is none's to handle on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status of who was ended by it."""
        return int(ExitStatus(128 + self.number))


class Ending:
    """What a signal does: it raises Told, or waits for the end of what must not be left half done."""

    def __init__(self) -> None:
        self._holding = False
        self._number: int | None = None

    def told(self, number: int, frame: FrameType | None) -> None:
        """The handler; what comes after the first signal is too late."""
        if self._number is None:
            self._number = number
            if not self._holding:
                raise Told(number)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within, nothing is raised: while a process is started of which nobody else knows yet, say."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    def check(self) -> None:
        """Raise what came while it was held."""
        if self._number is not None:
            raise Told(self._number)


@contextlib.contextmanager
def raising_when_told() -> Iterator[Ending]:
    """Within, SIGINT, SIGTERM and SIGHUP raise Told."""
    ending = Ending()
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for each in before:
        signal.signal(each, ending.told)
    try:
        yield ending
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
