"""What the programs that launch for us say, how they end, and the signals that we get: one queue, in the order of time.

A thread a pipe reads lines; the signal handlers put what they got into the same queue, and do nothing else.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from types import FrameType
from typing import IO, TYPE_CHECKING

from msgspec import Struct

from rakefarm.process import start_foreground, start_with_pipes

if TYPE_CHECKING:
    import subprocess

LONGEST_LINE = 4096
"""Bytes; a longer line comes in pieces."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Line(Struct, frozen=True):
    """A program has said something, on standard error or on standard output."""

    child: int
    text: str
    error: bool = False


class Ended(Struct, frozen=True):
    """A program is gone, and has said all that it had to say. `status` is as of a shell: 128 and the number of the
    signal that ended it."""

    child: int
    status: int


class Signalled(Struct, frozen=True):
    """We are asked to end."""

    number: int


Told = Line | Ended | Signalled


class Streams:
    """All programs of one launch, by number in the order of their start."""

    def __init__(self) -> None:
        # Of all queues this is the one that a signal handler may put into while the same thread is in `get`.
        self._queue: SimpleQueue[Told] = SimpleQueue()
        self._children: list[subprocess.Popen[bytes]] = []
        self._running: set[int] = set()

    @contextlib.contextmanager
    def taking_signals(self) -> Iterator[None]:
        """While the context lasts, what asks us to end is told like everything else. In the main thread."""

        def put(number: int, frame: FrameType | None) -> None:
            self._queue.put(Signalled(number))

        before = {number: signal.signal(number, put) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, words: Sequence[str], environ: Mapping[str, str], data: bytes) -> int:
        """Start a program in a session of its own, with `data` on its standard input, which stays open. Answers its
        number. Raises OSError."""
        child = start_with_pipes(words, environ)
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        number = self._add(child)
        with contextlib.suppress(BrokenPipeError):  # that it has ended is told in its turn
            os.write(child.stdin.fileno(), data)
        errors = threading.Thread(target=self._read, args=(number, child.stderr, True), daemon=True)
        errors.start()
        threading.Thread(target=self._attend, args=(number, child, errors), daemon=True).start()
        return number

    def start_in_front(self, words: Sequence[str], environ: Mapping[str, str]) -> int:
        """Start a program that has our streams and our terminal; only its end is told. Answers its number. Raises
        OSError."""
        child = start_foreground(words, environ)
        number = self._add(child)
        threading.Thread(target=self._wait, args=(number, child), daemon=True).start()
        return number

    def _add(self, child: "subprocess.Popen[bytes]") -> int:
        self._children.append(child)
        self._running.add(len(self._children) - 1)
        return len(self._children) - 1

    def get(self, timeout_s: float | None = None) -> Told | None:
        """The next that there is to tell; None when there was nothing for so long."""
        try:
            told = self._queue.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(told, Ended):
            self._running.discard(told.child)
        return told

    @property
    def running(self) -> frozenset[int]:
        """Whose end has not been told."""
        return frozenset(self._running)

    def end_input(self) -> None:
        """Let every program's standard input come to its end."""
        for child in self._children:
            if child.stdin is not None:
                with contextlib.suppress(OSError):
                    child.stdin.close()

    def signal(self, number: int, child: int | None = None) -> None:
        """Send a signal to one that runs, or to all of them."""
        for each in self.running if child is None else self.running & {child}:
            self._children[each].send_signal(number)

    def _attend(self, number: int, child: "subprocess.Popen[bytes]", errors: threading.Thread) -> None:
        assert child.stdout is not None
        self._read(number, child.stdout, False)
        errors.join()
        self._wait(number, child)

    def _read(self, number: int, pipe: IO[bytes], error: bool) -> None:
        with pipe:
            while data := pipe.readline(LONGEST_LINE):
                self._queue.put(Line(number, data.decode("utf-8", "replace").rstrip("\r\n"), error))

    def _wait(self, number: int, child: "subprocess.Popen[bytes]") -> None:
        status = child.wait()
        self._queue.put(Ended(number, status if status >= 0 else 128 - status))
