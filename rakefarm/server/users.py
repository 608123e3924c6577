"""Whose turn it is: slots go round between users, however many clients each has. A shared page, as `scoreboard`.

    waiting   a row for each user that waits in each worker: who, and since when its longest waiter there waits
    holders   one a slot: who holds it, and in which worker
    served    when each user was given a slot last

The rule is in `market.turns`. A single user's clients are served first come, first served.
"""

import mmap
import struct
import time
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

from rakefarm.market import turns
from rakefarm.market.turns import Rank

ROWS = 8
"""Users that are told of a worker; of more, those that have waited longest."""
SERVED = 1024
"""Two users whose numbers share a place here are taken for one when it comes to who was served last, and only then."""
_COUNT = struct.Struct("=Q")
_ROW = struct.Struct("=Qd")
_TIME = struct.Struct("=d")
_WORKER_BYTES = _COUNT.size + ROWS * _ROW.size
_USER_BITS = 48
_USER_MASK = (1 << _USER_BITS) - 1


def number_of(name: str) -> int:
    """A user's number, never 0. Who could choose names to collide would only share a turn with whom it hit."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big") or 1


class Users:
    """Made by the listener before it forks. Each row has one writer; who reads a torn one is wrong for a moment."""

    def __init__(self, workers: int, slots: int) -> None:
        self._workers = workers
        self._slots = slots
        self._holders_offset = workers * _WORKER_BYTES
        self._served_offset = self._holders_offset + slots * _COUNT.size
        self._map = mmap.mmap(-1, self._served_offset + SERVED * _TIME.size)

    def publish(self, worker: int, waiting: Iterable[tuple[int, float]]) -> None:
        """In a worker: which users wait there, and since when."""
        rows = sorted(waiting, key=lambda row: row[1])[:ROWS]
        data = _COUNT.pack(len(rows)) + b"".join([_ROW.pack(*row) for row in rows])
        start = worker * _WORKER_BYTES
        self._map[start : start + len(data)] = data

    def hold(self, slot: int, worker: int, user: int) -> None:
        """A user has been given a slot."""
        self._write(self._holders_offset + slot * _COUNT.size, _COUNT.pack((worker + 1) << _USER_BITS | user))
        self._write(self._served_offset + user % SERVED * _TIME.size, _TIME.pack(time.monotonic()))

    def let_go(self, slot: int) -> None:
        """By the slot's holder: it is about to be free."""
        self._write(self._holders_offset + slot * _COUNT.size, _COUNT.pack(0))

    def clear_worker(self, worker: int) -> None:
        """In the listener: take down what a dead worker had put up."""
        self.publish(worker, ())
        for slot, holder in enumerate(self._holders()):
            if holder >> _USER_BITS == worker + 1:
                self.let_go(slot)

    def rank(self, user: int, since: float) -> Rank:
        """Where somebody stands who has waited since then."""
        return turns.rank(user, since, self._held(), self._served)

    def next_in_turn(self) -> Rank | None:
        """Where the one stands whose turn it is; None when nobody waits."""
        return turns.next_in_turn(self._waiting(), self._held(), self._served)

    def _held(self) -> Counter[int]:
        return Counter(holder & _USER_MASK for holder in self._holders() if holder)

    def _waiting(self) -> Iterable[tuple[int, float]]:
        for worker in range(self._workers):
            start = worker * _WORKER_BYTES
            count = min(_COUNT.unpack_from(self._map, start)[0], ROWS)
            for row in range(count):
                yield _ROW.unpack_from(self._map, start + _COUNT.size + row * _ROW.size)

    def _holders(self) -> list[int]:
        return [holder for (holder,) in _COUNT.iter_unpack(self._map[self._holders_offset : self._served_offset])]

    def _served(self, user: int) -> float:
        when: float = _TIME.unpack_from(self._map, self._served_offset + user % SERVED * _TIME.size)[0]
        return when

    def _write(self, position: int, data: bytes) -> None:
        self._map[position : position + len(data)] = data
