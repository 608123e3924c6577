"""What the server's processes know of each other: a shared page that nobody waits for.

    header    load sample (written by the listener), draining flag
    standing  learned speed, recent faults (whoever learnt last)
    cells     one a worker: commands running, waiting and since when, slots held for clients, connections closed
    slots     one a slot: which worker's command runs there, and when it is expected to end (by who holds the slot)

A reader that meets a half-written sample reads again; of the rest each number is whole, since a price may as well count
a command that has just ended. So a quote costs a few reads of memory, no lock and no system call. The listener clears
what a worker that died had put up.
"""

import mmap
import struct
import threading
import time

from msgspec import Struct

from rakefarm.market.bid import Commitments, Load
from rakefarm.market.speed import decayed, learn_speed

_HEADER = struct.Struct("=QdQddQQddQ")  # version, taken_at, cores, busy, io, available, total, owner, in all, draining
_STANDING = struct.Struct("=ddd")  # speed, faults, faults counted at
_CELL = struct.Struct("=QQQQd")  # running, waiting, leased, connections closed, waiting since
_SLOT = struct.Struct("=Qd")  # worker + 1 (0: free), expected end
_NUMBER = struct.Struct("=Q")
_DOUBLE = struct.Struct("=d")
_DRAINING_OFFSET = _HEADER.size - _NUMBER.size
_CELLS_OFFSET = _HEADER.size + _STANDING.size
NEVER = 0.0


class Cell(Struct, frozen=True):
    """One worker's numbers; `waiting_since` is when who waits longest began to (monotonic seconds, 0: nobody)."""

    running: int = 0
    waiting: int = 0
    leased: int = 0
    closed: int = 0
    waiting_since: float = NEVER


class Scoreboard:
    """Made by the listener before it forks; the mapping is anonymous, so nothing is left of it afterwards."""

    def __init__(self, workers: int, slots: int, speed: float = 1.0) -> None:
        self.slots = slots
        self._slots_offset = _CELLS_OFFSET + workers * _CELL.size
        self._map = mmap.mmap(-1, self._slots_offset + slots * _SLOT.size)
        self._cells = struct.Struct("=" + _CELL.format.removeprefix("=") * workers)
        self._slots = struct.Struct("=" + _SLOT.format.removeprefix("=") * slots)
        self._version = 0
        self._write(_HEADER.size, _STANDING.pack(speed, 0.0, time.monotonic()))

    def publish_load(self, load: Load, taken_at: float) -> None:
        """In the listener: put up a fresh sample, taken at `taken_at` (monotonic seconds)."""
        fields = (
            load.cores,
            load.busy,
            load.io_wait,
            load.memory_available,
            load.memory_total,
            load.owner_idle_s,
            load.busy_in_all,
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
            version, taken_at, cores, busy, io_wait, available, total, owner, in_all, _ = _HEADER.unpack_from(self._map)
            if not version % 2 and _NUMBER.unpack_from(self._map, 0)[0] == version:
                age_s = max(0.0, time.monotonic() - taken_at)
                return Load(cores, busy, io_wait, available, total, age_s, owner, in_all)

    @property
    def draining(self) -> bool:
        """True once the server takes no new work."""
        return bool(_NUMBER.unpack_from(self._map, _DRAINING_OFFSET)[0])

    def drain(self) -> None:
        """In the listener: from now on decline."""
        self._write(_DRAINING_OFFSET, _NUMBER.pack(1))

    # --- the host's standing --------------------------------------------------------------------------

    @property
    def speed(self) -> float:
        """The learned speed of this host; 1 is the reference."""
        speed: float = _DOUBLE.unpack_from(self._map, _HEADER.size)[0]
        return speed

    def learn(self, work_s: float, elapsed_s: float, share: float) -> None:
        """Take in how long predicted work took; of two that learn at once one is forgotten, which does no harm."""
        self._write(_HEADER.size, _DOUBLE.pack(learn_speed(self.speed, work_s, elapsed_s, share)))

    def faults(self, half_life_s: float) -> float:
        """Faults of the host, decayed until now."""
        _, faults, counted_at = _STANDING.unpack_from(self._map, _HEADER.size)
        return decayed(faults, time.monotonic() - counted_at, half_life_s) if faults else 0.0

    def add_fault(self, half_life_s: float) -> None:
        """The host, not a user's command, failed."""
        faults = self.faults(half_life_s) + 1.0
        self._write(_HEADER.size, _STANDING.pack(self.speed, faults, time.monotonic()))

    # --- cells ----------------------------------------------------------------------------------------

    def write_cell(self, worker: int, cell: Cell) -> None:
        """In worker number `worker`: put up its numbers."""
        position = _CELLS_OFFSET + worker * _CELL.size
        self._map[position : position + _CELL.size] = _CELL.pack(
            cell.running, cell.waiting, cell.leased, cell.closed, cell.waiting_since
        )

    def read_cell(self, worker: int) -> Cell:
        """The numbers of one worker."""
        return Cell(*_CELL.unpack_from(self._map, _CELLS_OFFSET + worker * _CELL.size))

    def clear_worker(self, worker: int) -> None:
        """In the listener: take down what a dead worker had put up."""
        self.write_cell(worker, Cell())
        for slot in range(self.slots):
            if _NUMBER.unpack_from(self._map, self._slots_offset + slot * _SLOT.size)[0] == worker + 1:
                self.write_slot(slot, None, 0.0)

    def write_slot(self, slot: int, worker: int | None, ends_at: float) -> None:
        """By the slot's holder: whose command runs there and when it is expected to end (monotonic seconds)."""
        owner = 0 if worker is None else worker + 1
        self._write(self._slots_offset + slot * _SLOT.size, _SLOT.pack(owner, ends_at))

    def commitments(self) -> Commitments:
        """What all workers together have promised."""
        cells = self._cells.unpack_from(self._map, _CELLS_OFFSET)
        slots = self._slots.unpack_from(self._map, self._slots_offset)
        ends: tuple[float, ...] = ()
        if any(slots[::2]):
            now = time.monotonic()
            ends = tuple(sorted([end - now for owner, end in zip(slots[::2], slots[1::2], strict=True) if owner]))
        return Commitments(self.slots, sum(cells[::5]), sum(cells[1::5]), sum(cells[2::5]), ends)

    def longest_waiting(self) -> float:
        """Since when the one has waited that has waited longest, over all workers; 0 when nobody waits."""
        since = self._cells.unpack_from(self._map, _CELLS_OFFSET)[4::5]
        return min(filter(None, since), default=NEVER)


class WorkerBoard:
    """One worker's side of the scoreboard: counts its threads' work and publishes each change."""

    def __init__(self, scoreboard: Scoreboard, worker: int) -> None:
        self.scoreboard = scoreboard
        self._worker = worker
        self._lock = threading.Lock()
        self._running = self._leased = self._closed = 0
        self._waiting: dict[int, float] = {}  # since when, by turn
        self._aside: dict[int, float] = {}  # the same of who waits for something else than a slot
        self._next_turn = 1

    def _publish(self) -> None:
        since = min(self._waiting.values()) if self._waiting else NEVER
        cell = Cell(self._running, len(self._waiting), self._leased, self._closed, since)
        self.scoreboard.write_cell(self._worker, cell)

    def count(self, *, running: int = 0, leased: int = 0, closed: int = 0) -> None:
        """Add to the worker's numbers."""
        with self._lock:
            self._running += running
            self._leased += leased
            self._closed += closed
            assert self._running >= 0 <= self._leased
            self._publish()

    def begin(self, slot: int, run_s: float, leased: bool = False) -> None:
        """A command is committed to `slot`, which may have been leased, and is expected to take `run_s` seconds."""
        self.scoreboard.write_slot(slot, self._worker, time.monotonic() + run_s)
        with self._lock:
            self._running += 1
            self._leased -= leased
            self._publish()

    def end(self, slot: int) -> None:
        """The command in `slot` has ended, and the slot is about to be given back."""
        self.scoreboard.write_slot(slot, None, 0.0)
        with self._lock:
            self._running -= 1
            assert self._running >= 0
            self._publish()

    # --- turns ----------------------------------------------------------------------------------------

    def queue(self) -> int:
        """Begin to wait for a slot; answers the number of the turn."""
        with self._lock:
            turn = self._next_turn
            self._next_turn += 1
            self._waiting[turn] = time.monotonic()
            self._publish()
            return turn

    def step_aside(self, turn: int, aside: bool) -> None:
        """Let others pass, or don't any more: whose turn it was is then next again."""
        origin, goal = (self._waiting, self._aside) if aside else (self._aside, self._waiting)
        with self._lock:
            if turn in origin:
                goal[turn] = origin.pop(turn)
                self._publish()

    def leave_queue(self, turn: int) -> None:
        """Wait no longer."""
        with self._lock:
            self._waiting.pop(turn, None)
            self._aside.pop(turn, None)
            self._publish()

    def is_next(self, turn: int | None) -> bool:
        """Whether nobody has waited longer: who has no turn yet comes after all that have, and who has stepped aside
        is never next."""
        longest = self.scoreboard.longest_waiting()
        if turn is None:
            return longest == NEVER
        since = self._waiting.get(turn)
        return since is not None and (longest == NEVER or since <= longest)
