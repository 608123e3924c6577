"""Slots: how many commands run at once, over all processes that share them. A slot is a lock that the kernel frees.

All of them are one fifo. Its offsets are the slots: each is held with a lock of an open file (fcntl(2), F_OFD_SETLK),
so when its holder dies, however, the kernel releases it: a slot never leaks and there is no bookkeeping to repair. Its
bytes are the event: every release writes one, and who finds all slots taken waits until there is something to read; who
wakes and gets a slot passes the wake-up on, in case two were released. A holder that was killed writes nothing, so
waiters also look for themselves now and then. Both are the kernel's own even where the directory is another machine's
(NFS): slots are always those of one machine.

Invariant: slots taken plus slots free equals slots; a slot has one holder. A lock belongs to an open file, which the
threads of a process share, so within a process the set `_held` keeps them apart.
"""

import contextlib
import fcntl
import os
import struct
import threading
from collections.abc import Iterator

LOOK_AGAIN_S = 0.25
GIVE_WAY_S = 0.005
"""How long who comes while another process waits leaves a slot that comes free to those who wait."""
MAX_SLOTS = 4096
_WAITING = 1 << 20
"""The offset that is locked, for reading, by each process in which somebody waits."""
_LOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2): type, whence, start, length, process
_OPEN = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
_DRAIN_BYTES = 1 << 16


class Slots:
    """In a server's listener: makes the fifo at `path`, before any worker starts."""

    def __init__(self, path: str, count: int) -> None:
        self.count = count
        self.path = path
        with contextlib.suppress(FileExistsError):  # those of a user outlive who made them
            os.mkfifo(path, 0o600)
        self.event = os.open(path, _OPEN)

    def wake_waiters(self) -> None:
        """Tell whoever waits that a slot may be free."""
        _write(self.event)

    def open(self) -> "OpenSlots":
        """In a worker: its own view. Open files are shared over fork, so each worker must open its own."""
        return OpenSlots(self.path, self.count)


class OpenSlots:
    """One process's view of the slots at `path`: take and give back, from any thread. Raises OSError when made."""

    def __init__(self, path: str, count: int) -> None:
        self.count = count
        self._file = os.open(path, _OPEN)
        self._held: set[int] = set()
        self._waiting = 0
        self._lock = threading.Lock()

    @property
    def event(self) -> int:
        """A descriptor that becomes readable when a slot may be free; poll it, then `try_take(woken=True)`."""
        return self._file

    def try_take(self, woken: bool = False) -> int | None:
        """A free slot's number, now yours, or None. `woken`: we come from waiting on `event`."""
        if woken:
            with contextlib.suppress(BlockingIOError):
                os.read(self._file, _DRAIN_BYTES)
        taken = self._take()
        if woken and taken is not None:
            _write(self._file)
        return taken

    def _take(self) -> int | None:
        with self._lock:
            for number in range(self.count):
                if number not in self._held and self._set(fcntl.F_WRLCK, number):
                    self._held.add(number)
                    return number
        return None

    def give_back(self, number: int, wake: bool = True) -> None:
        """End the holding of a slot taken with `try_take`. Without `wake` nobody is told: for who could not use it."""
        with self._lock:
            assert number in self._held
            self._held.remove(number)
            self._set(fcntl.F_UNLCK, number)
        if wake:
            _write(self._file)

    def count_taken(self) -> int:
        """How many slots are taken now, by anyone."""
        with self._lock:
            return sum(1 for number in range(self.count) if number in self._held or self._is_locked(number))

    # --- who waits --------------------------------------------------------------------------------------

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits in another process: a slot that comes free is rather theirs."""
        return self._is_locked(_WAITING)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While this lasts, others know that we wait."""
        with self._lock:
            self._waiting += 1
            self._set(fcntl.F_RDLCK, _WAITING)
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._set(fcntl.F_UNLCK, _WAITING)

    def _set(self, kind: int, offset: int) -> bool:
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, offset, 1, 0))
        except BlockingIOError:
            return False
        return True

    def _is_locked(self, offset: int) -> bool:
        """Whether another open file holds a lock there."""
        question = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        return bool(_LOCK.unpack(fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, question))[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Give back whatever is held."""
        os.close(self._file)


def _write(file: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it is full: there is something to read for everyone
        os.write(file, b"\0")
