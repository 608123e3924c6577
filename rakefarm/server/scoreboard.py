"""What the server's processes know of each other: a shared page that nobody waits for.

    header    load sample (written by the listener), draining flag
    standing  learned speed, recent faults (whoever learnt last), whether the bid is replaced
    cells     one a worker: commands running, waiting and since when, slots held for clients, connections closed
    slots     one a slot: which worker's command runs there, and when it is expected to end (by who holds the slot)

A reader that meets a half-written sample reads again; of the rest each number is whole, since a price may as well count
a command that has just ended. So a quote costs a few reads of memory, no lock and no system call. The listener clears
what a worker that died had put up.
"""

import mmap
import os
import struct
import threading
import time

from msgspec import Struct

from rakefarm.market.bid import Commitments, Load
from rakefarm.market.speed import decayed, learn_speed
from rakefarm.server.roster import Roster
from rakefarm.server.users import Users
from rakefarm.wire.status import StoreUse

# version, taken_at, cores, busy, io, available, total, owner, in all, load average, draining
_HEADER = struct.Struct("=QdQddQQdddQ")
_STANDING = struct.Struct("=dddQ")  # speed, faults, faults counted at, whether the bid is replaced
_CELL = struct.Struct("=QQQQd")  # running, waiting, leased, connections closed, waiting since
_SLOT = struct.Struct("=Qd")  # worker + 1 (0: free), expected end
_NUMBER = struct.Struct("=Q")
_DOUBLE = struct.Struct("=d")
_DRAINING_OFFSET = _HEADER.size - _NUMBER.size
_REPLACED_OFFSET = _HEADER.size + _STANDING.size - _NUMBER.size
_CELLS_OFFSET = _HEADER.size + _STANDING.size
NEVER = 0.0
REMEMBERED_S = 0.05
"""How long a sample that was read is not read again while there is no newer one."""


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
        self.users = Users(workers, slots)
        self.roster = Roster(workers, slots)
        self._slots_offset = _CELLS_OFFSET + workers * _CELL.size
        self._map = mmap.mmap(-1, self._slots_offset + slots * _SLOT.size)
        self._cells = struct.Struct("=" + _CELL.format.removeprefix("=") * workers)
        self._slots = struct.Struct("=" + _SLOT.format.removeprefix("=") * slots)
        self._version = 0
        self._seen: tuple[int, float, Load] | None = None  # the last sample that was read: its version, and when
        self._write(_HEADER.size, _STANDING.pack(speed, 0.0, time.monotonic(), 0))
        self._first = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # of all processes one can read it

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
            load.load_average,
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
        """The newest sample, with its age as of a moment ago."""
        seen, now = self._seen, time.monotonic()
        if seen is not None and seen[0] == _NUMBER.unpack_from(self._map)[0] and now - seen[1] < REMEMBERED_S:
            return seen[2]
        while True:
            version, taken_at, cores, busy, io_wait, available, total, *rest, _ = _HEADER.unpack_from(self._map)
            if not version % 2 and _NUMBER.unpack_from(self._map, 0)[0] == version:
                load = Load(cores, busy, io_wait, available, total, max(0.0, now - taken_at), *rest)
                self._seen = version, now, load
                return load

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
        _, faults, counted_at, _ = _STANDING.unpack_from(self._map, _HEADER.size)
        return decayed(faults, time.monotonic() - counted_at, half_life_s) if faults else 0.0

    def add_fault(self, half_life_s: float) -> None:
        """The host, not a user's command, failed."""
        faults = self.faults(half_life_s) + 1.0
        self._write(_HEADER.size + _DOUBLE.size, struct.pack("=dd", faults, time.monotonic()))

    @property
    def bid_replaced(self) -> bool:
        """Whether the configured bid has failed and the default is used in its place."""
        return bool(_NUMBER.unpack_from(self._map, _REPLACED_OFFSET)[0])

    def replace_bid(self) -> bool:
        """The configured bid has failed, for all workers. True for who says so first: it has to report it."""
        self._write(_REPLACED_OFFSET, _NUMBER.pack(1))
        try:
            os.eventfd_read(self._first)
        except BlockingIOError:
            return False
        return True

    def restore_bid(self) -> None:
        """In the listener: another bid may be configured now."""
        self.replace_bid()
        os.eventfd_write(self._first, 1)
        self._write(_REPLACED_OFFSET, _NUMBER.pack(0))

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
        self.users.clear_worker(worker)
        self.roster.clear_worker(worker)
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
        self._waiting: dict[int, tuple[float, int]] = {}  # since when, and who, by turn
        self._aside: dict[int, tuple[float, int]] = {}  # the same of who waits for something else than a slot
        self._told: dict[int, float] = {}  # what the shared page says of us
        self._next_turn = 1

    def _publish(self) -> None:
        since = min(self._waiting.values())[0] if self._waiting else NEVER
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

    def _publish_waiting(self) -> None:
        users: dict[int, float] = {}
        for since, user in self._waiting.values():
            users[user] = min(users.get(user, since), since)
        if users != self._told:
            self._told = users
            self.scoreboard.users.publish(self._worker, users.items())
        self._publish()

    def hold(self, slot: int, user: int) -> None:
        """A user has been given a slot, and holds it until `let_go`."""
        self.scoreboard.users.hold(slot, self._worker, user)

    def let_go(self, slot: int) -> None:
        """The slot is about to be given back."""
        self.scoreboard.roster.leave(slot)
        self.scoreboard.users.let_go(slot)

    def enter(self, slot: int, user: bytes, client: bytes, label: bytes) -> None:
        """Who has the slot, for people (see `roster`)."""
        self.scoreboard.roster.enter(slot, self._worker, user, client, label)

    def count_inputs(self, use: StoreUse) -> None:
        """What the store had of an action's inputs."""
        with self._lock:
            self.scoreboard.roster.count_inputs(self._worker, use)

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

    def queue(self, user: int = 1) -> int:
        """Begin to wait for a slot, for the user of that number; answers the number of the turn."""
        with self._lock:
            turn = self._next_turn
            self._next_turn += 1
            self._waiting[turn] = time.monotonic(), user
            self._publish_waiting()
            return turn

    def step_aside(self, turn: int, aside: bool) -> None:
        """Let others pass, or don't any more: whose turn it was is then next again."""
        origin, goal = (self._waiting, self._aside) if aside else (self._aside, self._waiting)
        with self._lock:
            if turn in origin:
                goal[turn] = origin.pop(turn)
                self._publish_waiting()

    def leave_queue(self, turn: int) -> None:
        """Wait no longer."""
        with self._lock:
            self._waiting.pop(turn, None)
            self._aside.pop(turn, None)
            self._publish_waiting()

    def is_next(self, turn: int | None) -> bool:
        """Whether it is this one's turn, as `users` says: who has none yet comes after all that have, and who has
        stepped aside is never next."""
        if turn is None:
            return self.scoreboard.longest_waiting() == NEVER
        waiting = self._waiting.get(turn)
        if waiting is None:
            return False
        since, user = waiting
        users = self.scoreboard.users
        following = users.next_in_turn()
        return following is None or users.rank(user, since) <= following
