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


@contextlib.contextmanager
def raising_when_told() -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP raise Told, the first of them; what comes later is too late."""

    def told(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # we are ending already
        raise Told(number)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for each in before:
        signal.signal(each, told)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
