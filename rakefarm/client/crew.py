"""Runner threads: each does one thing at a time, blocking, and then the next.

Only the last of what was submitted wakes whoever waits for all of it: a thread that is woken for every action takes the
interpreter away from those at work, which doubled the client's share of a small action. For the same reason a runner
that, in ending one thing, submits another does it itself.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

JOIN_S = 1.5
Item = TypeVar("Item")


class _Mine(threading.local, Generic[Item]):
    """What a runner has submitted for itself."""

    ending = False
    following: Item | None = None


class Crew(Generic[Item]):
    """`perform` does one item, in a runner thread; `idle` is called by a runner that finds nothing to do, `failed` by
    one that ends because of an error that is not its item's."""

    def __init__(
        self,
        name: str,
        perform: Callable[[Item], None],
        idle: Callable[[], None] | None = None,
        failed: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._perform = perform
        self._idle = idle
        self._failed = failed
        self._threads: list[threading.Thread] = []
        self._most = 1
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._mine: _Mine[Item] = _Mine()
        self._lock = threading.Lock()
        self._outstanding = 0
        self._stopping = False
        self._error: BaseException | None = None
        self._settled = threading.Event()
        self._settled.set()

    @property
    def error(self) -> BaseException | None:
        """What a runner met that was not its item's; the first one."""
        return self._error

    def grow_to(self, most: int) -> None:
        """Have as many runners as there is work for, up to this."""
        with self._lock:
            self._most = max(self._most, most)
            lacking = min(self._most, self._outstanding) - len(self._threads)
            hired = [] if self._stopping else [self._hire() for _ in range(lacking)]
        for thread in hired:
            thread.start()

    @property
    def most(self) -> int:
        """How many runners there may be."""
        return self._most

    def _hire(self) -> threading.Thread:
        self._threads.append(threading.Thread(target=self._work, name=self._name, daemon=True))
        return self._threads[-1]

    def submit(self, item: Item) -> None:
        """Have it done by a runner, as soon as one is free."""
        with self._lock:
            self._outstanding += 1
            if self._error is None:  # else a runner is missing, and whoever waits is to hear of it
                self._settled.clear()
            hire = len(self._threads) < min(self._most, self._outstanding)
            if hire:
                thread = self._hire()
        if self._mine.ending and self._mine.following is None and not hire:
            self._mine.following = item
            return
        self._queue.put(item)
        if hire:
            thread.start()

    def end_with(self, tell: Callable[[], None]) -> None:
        """In a runner, as the last thing it does for an item: what `tell` submits first is this runner's own."""
        self._mine.ending = True
        try:
            tell()
        finally:
            self._mine.ending = False

    def wait_settled(self) -> None:
        """Until everything submitted so far has ended. Raises what a runner met that was not the item's."""
        self._settled.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Begin nothing more; wait a little for the runners to end."""
        with self._lock:
            self._stopping = True
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        deadline = time.monotonic() + JOIN_S
        for thread in threads:
            if thread.ident is not None:  # else whoever hired it was interrupted before it could be started
                thread.join(max(0.0, deadline - time.monotonic()))

    # --- in a runner thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping and (item := self._next()) is not None:
            try:
                self._perform(item)
            except BaseException as error:
                self._fail(error)
                return
            with self._lock:
                self._outstanding -= 1
                if not self._outstanding:
                    self._settled.set()

    def _next(self) -> Item | None:
        following, self._mine.following = self._mine.following, None
        if following is not None:
            return following
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            if self._idle is not None:
                self._idle()
            return self._queue.get()

    def _fail(self, error: BaseException) -> None:
        """Handed to the main thread, which ends the build and raises it again; the first one wins."""
        with self._lock:
            self._error = self._error or error
            self._settled.set()
        if self._failed is not None:
            self._failed()
