"""Ending a compiler call whose caller is gone."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Protocol

from rakefarm.transport import Lost


class Severable(Protocol):
    """What stands between us and the command, elsewhere: without it, that ends."""

    def cut(self) -> None:
        """At once, from any thread."""


class Cancel:
    """Lets another thread end a call: cuts the link in use, whereupon the server kills the command, or makes a
    descriptor readable, whereupon we do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link: Severable | None = None
        self._event: int | None = None
        self.gone = False

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """One that becomes readable."""
        event = os.eventfd(0, os.EFD_CLOEXEC)
        with self._lock:
            self._event = event
            if self.gone:
                os.eventfd_write(event, 1)
        try:
            yield event
        finally:
            with self._lock:
                self._event = None
            os.close(event)

    def use(self, link: Severable | None) -> None:
        """From now on this link is to be cut. Raises Lost when it is too late."""
        with self._lock:
            self._link = link
            if self.gone and link is not None:
                raise Lost("nobody waits for the result any more")

    def cancel(self) -> None:
        """End it."""
        with self._lock:
            self.gone = True
            if self._link is not None:
                self._link.cut()
            if self._event is not None:
                os.eventfd_write(self._event, 1)
