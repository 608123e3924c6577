"""Who has each slot, and what the content store has saved: for STATUS, not for prices. A shared page, as `scoreboard`.

    rows     one a slot: in which worker, since when, and three names (by who holds the slot)
    counts   one a worker: inputs that the store had, and that were sent (by that worker); a new worker goes on counting

A row that is read while it is written shows a mixture of two, for a moment, to a person.
"""

import mmap
import struct
import time

from rakefarm.wire.status import Occupant, StoreUse

NAME_BYTES = 64
MOST_OCCUPANTS = 256
_ROW = struct.Struct(f"=Qd{NAME_BYTES}s{NAME_BYTES}s{NAME_BYTES}s")  # worker + 1 (0: free), since, user, client, label
_COUNTS = struct.Struct("=QQQQ")
_NUMBER = struct.Struct("=Q")


def short(name: str) -> bytes:
    """A name as a row holds it."""
    return name.encode("utf-8", "replace")[:NAME_BYTES]


class Roster:
    """Made by the listener before it forks. `started_at` is when the server was (monotonic seconds)."""

    def __init__(self, workers: int, slots: int) -> None:
        self.started_at = time.monotonic()
        self._slots = slots
        self._counts_offset = slots * _ROW.size
        self._map = mmap.mmap(-1, self._counts_offset + workers * _COUNTS.size)

    def enter(self, slot: int, worker: int, user: bytes, client: bytes, label: bytes) -> None:
        """By the slot's holder: who has it now; a row that is this worker's keeps its time."""
        start = slot * _ROW.size
        owner, since, *_ = _ROW.unpack_from(self._map, start)
        since = since if owner == worker + 1 else time.monotonic()
        self._map[start : start + _ROW.size] = _ROW.pack(worker + 1, since, user, client, label)

    def leave(self, slot: int) -> None:
        """By the slot's holder: it is about to be free."""
        start = slot * _ROW.size
        self._map[start : start + _NUMBER.size] = _NUMBER.pack(0)

    def clear_worker(self, worker: int) -> None:
        """In the listener: what a dead worker had entered."""
        for slot in range(self._slots):
            if _NUMBER.unpack_from(self._map, slot * _ROW.size)[0] == worker + 1:
                self.leave(slot)

    def occupants(self) -> tuple[Occupant, ...]:
        """Who has a slot now, by slot."""
        now = time.monotonic()
        found: list[Occupant] = []
        for slot, (owner, since, *names) in enumerate(_ROW.iter_unpack(self._map[: self._counts_offset])):
            if owner and len(found) < MOST_OCCUPANTS:
                # Cut within a character, perhaps.
                user, client, label = [name.rstrip(b"\0").decode("utf-8", "ignore") for name in names]
                found.append(Occupant(slot, user, client, label, max(0.0, now - since)))
        return tuple(found)

    def count_inputs(self, worker: int, use: StoreUse) -> None:
        """In worker number `worker`, by one thread at a time: what the store had of an action's inputs."""
        start = self._counts_offset + worker * _COUNTS.size
        before = _COUNTS.unpack_from(self._map, start)
        added = (use.hits, use.misses, use.hit_bytes, use.missed_bytes)
        sums = [(old + new) % (1 << 64) for old, new in zip(before, added, strict=True)]
        self._map[start : start + _COUNTS.size] = _COUNTS.pack(*sums)

    def store_use(self) -> StoreUse:
        """Over all workers."""
        rows = list(_COUNTS.iter_unpack(self._map[self._counts_offset :]))
        return StoreUse(*[sum(column) % (1 << 64) for column in zip(*rows, strict=True)])
