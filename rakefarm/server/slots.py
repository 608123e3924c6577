"""Slots: how many commands run at once, over all workers. A slot is a lock that the kernel gives back.

One file a slot, locked with `flock`: when its holder dies, however, the kernel releases it, so a slot never
leaks and there is no bookkeeping to repair. Who finds all slots taken waits on an event counter that every
release bumps; who wakes and gets a slot passes the wake-up on, in case two were released. A holder that was
killed bumps nothing, so waiters also look for themselves now and then.

Invariant: slots taken plus slots free equals slots; a slot has one holder. flock belongs to an open file, which
the threads of a worker share, so within a worker the set `_held` keeps them apart.
"""

import fcntl
import os
import threading
from collections.abc import Sequence

LOOK_AGAIN_S = 0.25


class Slots:
    """In the listener: makes the slot files in `directory` and the event counter, before any worker starts."""

    def __init__(self, directory: str, count: int) -> None:
        self.count = count
        self.directory = directory
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for number in range(count):
            os.close(os.open(self._path(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))

    def _path(self, number: int) -> str:
        return os.path.join(self.directory, str(number))

    def wake_waiters(self) -> None:
        """Tell whoever waits that a slot may be free."""
        os.eventfd_write(self.event, 1)

    def open(self) -> "WorkerSlots":
        """In a worker: its own view. Open files are shared over fork, so each worker must open its own."""
        paths = [self._path(number) for number in range(self.count)]
        return WorkerSlots([os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in paths], self.event)


class WorkerSlots:
    """In a worker: take and give back slots, from any thread."""

    def __init__(self, files: Sequence[int], event: int) -> None:
        self._files = files
        self._event = event
        self._held: set[int] = set()
        self._lock = threading.Lock()

    @property
    def event(self) -> int:
        """A descriptor that becomes readable when a slot may be free; poll it, then `try_take(woken=True)`."""
        return self._event

    def try_take(self, woken: bool = False) -> int | None:
        """A free slot's number, now yours, or None. `woken`: we come from waiting on `event`."""
        if woken:
            try:
                os.eventfd_read(self._event)
            except BlockingIOError:
                pass
        taken = self._take()
        if woken and taken is not None:
            os.eventfd_write(self._event, 1)
        return taken

    def _take(self) -> int | None:
        with self._lock:
            for number, file in enumerate(self._files):
                if number in self._held:
                    continue
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                self._held.add(number)
                return number
        return None

    def give_back(self, number: int, wake: bool = True) -> None:
        """End the holding of a slot taken with `try_take`. Without `wake` nobody is told: for who could not use it."""
        with self._lock:
            assert number in self._held
            self._held.remove(number)
            fcntl.flock(self._files[number], fcntl.LOCK_UN)
        if wake:
            os.eventfd_write(self._event, 1)
