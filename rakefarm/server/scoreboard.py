"""What the server's processes know of each other: a shared page that nobody waits for.

    header  load sample (written by the listener), draining flag
    cells   one a worker: commands running, waiting, places leased and until when, connections it has closed

Each cell has one writer, and a reader that meets a half-written one reads again: a quote costs two reads of
memory, no lock and no system call. The listener clears the cell of a worker that died.
"""

import mmap
import struct
import threading
import time

from msgspec import Struct

from rakefarm.market.bid import Commitments, Load

_HEADER = struct.Struct("=QdQddQQQ")  # version, taken_at, cores, busy, io_wait, available, total, draining
_CELL = struct.Struct("=QQQQdQ")  # running, waiting, leased, connections closed, leased until, reserved
_DRAINING = struct.Struct("=Q")
_VERSION = struct.Struct("=Q")
_DRAINING_OFFSET = _HEADER.size - _DRAINING.size


class Cell(Struct, frozen=True):
    """One worker's numbers."""

    running: int = 0
    waiting: int = 0
    leased: int = 0
    closed: int = 0
    leased_until: float = 0.0


class Scoreboard:
    """Made by the listener before it forks; the mapping is anonymous, so nothing is left of it afterwards."""

    def __init__(self, workers: int, slots: int) -> None:
        self.slots = slots
        self._workers = workers
        self._map = mmap.mmap(-1, _HEADER.size + workers * _CELL.size)
        self._version = 0

    def publish_load(self, load: Load, taken_at: float) -> None:
        """In the listener: put up a fresh sample, taken at `taken_at` (monotonic seconds)."""
        draining = int(self.draining)
        fields = (
            load.cores,
            load.busy_cores,
            load.io_wait,
            load.memory_available,
            load.memory_total,
            draining,
        )
        _HEADER.pack_into(self._map, 0, self._version + 1, taken_at, *fields)
        self._version += 2
        _VERSION.pack_into(self._map, 0, self._version)

    def load(self) -> Load:
        """The newest sample, with its age."""
        while True:
            version, taken_at, cores, busy, io_wait, available, total, _ = _HEADER.unpack_from(self._map, 0)
            if not version % 2 and _VERSION.unpack_from(self._map, 0)[0] == version:
                age_s = max(0.0, time.monotonic() - taken_at)
                return Load(cores, busy, io_wait, available, total, age_s)

    @property
    def draining(self) -> bool:
        """True once the server takes no new work."""
        return bool(_DRAINING.unpack_from(self._map, _DRAINING_OFFSET)[0])

    def drain(self) -> None:
        """In the listener: from now on decline."""
        _DRAINING.pack_into(self._map, _DRAINING_OFFSET, 1)

    def write_cell(self, worker: int, cell: Cell) -> None:
        """In worker number `worker`: put up its numbers. In the listener: clear a dead worker's."""
        position = _HEADER.size + worker * _CELL.size
        _CELL.pack_into(self._map, position, cell.running, cell.waiting, cell.leased, cell.closed, cell.leased_until, 0)

    def read_cell(self, worker: int) -> Cell:
        """The numbers of one worker."""
        position = _HEADER.size + worker * _CELL.size
        running, waiting, leased, closed, leased_until, _ = _CELL.unpack_from(self._map, position)
        return Cell(running, waiting, leased, closed, leased_until)

    def commitments(self) -> Commitments:
        """What all workers together have promised, expired leases left out."""
        now = time.monotonic()
        running = waiting = leased = 0
        for run, wait, lease, _, until, _ in _CELL.iter_unpack(self._map[_HEADER.size :]):
            running += run
            waiting += wait
            leased += lease if until > now else 0
        return Commitments(self.slots, running, waiting, leased)


class WorkerBoard:
    """One worker's side of the scoreboard: counts its threads' work and publishes each change."""

    def __init__(self, scoreboard: Scoreboard, worker: int, lease_s: float) -> None:
        self.scoreboard = scoreboard
        self.lease_s = lease_s
        self._worker = worker
        self._lock = threading.Lock()
        self._running = self._waiting = self._closed = 0
        self._leases: dict[int, float] = {}
        self._next_lease = 1

    def _publish(self) -> None:
        until = 0.0
        if self._leases:
            now = time.monotonic()
            self._leases = {lease: end for lease, end in self._leases.items() if end > now}
            until = max(self._leases.values(), default=0.0)
        self.scoreboard.write_cell(
            self._worker, Cell(self._running, self._waiting, len(self._leases), self._closed, until)
        )

    def count(self, *, running: int = 0, waiting: int = 0, closed: int = 0, lease: int = 0) -> None:
        """Add to the worker's numbers; `lease`, if it is held, becomes what is counted."""
        with self._lock:
            self._leases.pop(lease, None)
            self._running += running
            self._waiting += waiting
            self._closed += closed
            assert self._running >= 0 <= self._waiting
            self._publish()

    def holds(self, lease: int) -> bool:
        """Whether this place is still held."""
        return self._leases.get(lease, 0.0) > time.monotonic()

    def lease(self) -> int:
        """Hold a place for `lease_s` seconds; answers its number."""
        with self._lock:
            lease = self._next_lease
            self._next_lease += 1
            self._leases[lease] = time.monotonic() + self.lease_s
            self._publish()
            return lease

    def release(self, lease: int) -> None:
        """Give a place back; an expired or unknown one is fine."""
        with self._lock:
            if self._leases.pop(lease, None) is not None:
                self._publish()
