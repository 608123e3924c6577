"""What the server's processes know of each other: a shared page that nobody waits for.

    header  load sample (written by the listener), draining flag
    cells   one a worker: commands running, waiting, places leased and until when, connections it has closed

Each has one writer. A reader that meets a half-written sample reads again; a cell's numbers are told apart, each
whole, since a price may as well count a command that has just ended. So a quote costs two reads of memory, no lock and
no system call. The listener clears the cell of a worker that died.
"""

import mmap
import struct
import threading
import time

from msgspec import Struct

from rakefarm.market.bid import Commitments, Load

_HEADER = struct.Struct("=QdQddQQQ")  # version, taken_at, cores, busy, io_wait, available, total, draining
_CELL = struct.Struct("=QQQQdQ")  # running, waiting, leased, connections closed, leased until, reserved
_NUMBER = struct.Struct("=Q")
_DRAINING_OFFSET = _HEADER.size - _NUMBER.size


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
        fields = (
            load.cores,
            load.busy_cores,
            load.io_wait,
            load.memory_available,
            load.memory_total,
            int(self.draining),
        )
        self._write(0, _NUMBER.pack(self._version + 1))
        self._write(0, _HEADER.pack(self._version + 1, taken_at, *fields))
        self._version += 2
        self._write(0, _NUMBER.pack(self._version))

    def _write(self, position: int, data: bytes) -> None:
        # Not `pack_into`, which fills its place with zeros first: readers met an idle machine without a core.
        self._map[position : position + len(data)] = data

    def load(self) -> Load:
        """The newest sample, with its age."""
        while True:
            version, taken_at, cores, busy, io_wait, available, total, _ = _HEADER.unpack_from(self._map, 0)
            if not version % 2 and _NUMBER.unpack_from(self._map, 0)[0] == version:
                age_s = max(0.0, time.monotonic() - taken_at)
                return Load(cores, busy, io_wait, available, total, age_s)

    @property
    def draining(self) -> bool:
        """True once the server takes no new work."""
        return bool(_NUMBER.unpack_from(self._map, _DRAINING_OFFSET)[0])

    def drain(self) -> None:
        """In the listener: from now on decline."""
        self._write(_DRAINING_OFFSET, _NUMBER.pack(1))

    def write_cell(self, worker: int, cell: Cell) -> None:
        """In worker number `worker`: put up its numbers. In the listener: clear a dead worker's."""
        position = _HEADER.size + worker * _CELL.size
        data = _CELL.pack(cell.running, cell.waiting, cell.leased, cell.closed, cell.leased_until, 0)
        self._write(position, data)

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
