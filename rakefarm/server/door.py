"""Who may stand at the door: how many connections have proved nothing yet, in all and of one address, and for how long.

listener                                   worker, in the connection's thread
  takes a ticket for each, hands it over ─► SPEAKS with the first byte, then INSIDE, FAILED or GONE
  reads all tickets, one byte each       ◄─ (a shared page; each byte has one writer at a time)

Who comes when the places are taken is let in, and one of the address that has most must go: who has stood there
longest, those that have said nothing first. So must those of an address that has too many, but for the youngest, who
may yet prove themselves. So neither a hundred idle connections nor a thousand new ones a second keep out who proves
itself in a few milliseconds. An address that fails is shut out for a while, twice as long each time, until it succeeds.

The listener keeps a copy of the socket as long as the ticket is out: shutting that down is what ends the worker's.
"""

import contextlib
import mmap
import socket
import time
from collections import Counter, OrderedDict

from msgspec import Struct

from rakefarm.security.network import group_of

FREE, SILENT, SPEAKS, INSIDE, FAILED, GONE = range(6)
NO_TICKET = 0xFFFF
TICKETS = 1024
"""More than there are places: one that was sent away keeps its ticket until its worker has seen it."""
GRACE_S = 1.0
"""How long after its time a worker may need to say so; then it counts as dead."""
YOUNG_S = 0.25
"""An address may have more than its places for so long."""
FIRST_PENALTY_S = 0.1
REMEMBERED = 4096
"""Addresses whose failures are remembered, the latest of them."""


class Board:
    """The shared page, made before the workers are forked."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, TICKETS)

    def tell(self, ticket: int, state: int) -> None:
        """In a worker: how it goes with a connection."""
        if ticket != NO_TICKET:
            self._map[ticket] = state

    def states(self) -> bytes:
        """All of them."""
        return self._map[:]

    def set(self, ticket: int, state: int) -> None:
        """In the listener."""
        self._map[ticket] = state


class _Waiting(Struct):
    address: str
    since: float
    socket: socket.socket


class _Failures(Struct):
    count: int = 0
    until: float = 0.0


class Door:
    """In the listener."""

    def __init__(self, board: Board, places: int, places_per_address: int, proof_s: float, penalty_s: float) -> None:
        self._board = board
        self._places = places
        self._per_address = places_per_address
        self._proof_s = proof_s
        self._longest_penalty_s = penalty_s
        self._waiting: dict[int, _Waiting] = {}
        self._leaving: dict[int, float] = {}
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def admit(self, connection: socket.socket, address: str) -> int | None:
        """A ticket for a new connection, or None when its address is shut out for now."""
        now = time.monotonic()
        self.look(now)
        address = group_of(address)
        failures = self._failures.get(address)
        if failures is not None and failures.until > now:
            return None
        if len(self._waiting) >= self._places:
            counts = Counter(waiting.address for waiting in self._waiting.values())
            self._send_away(counts.most_common(1)[0][0])
        ticket = self._board.states().find(FREE)
        if ticket < 0:
            return None  # workers are slow to let go; it may come again
        try:
            copy = connection.dup()
        except OSError:
            return None
        self._board.set(ticket, SILENT)
        self._waiting[ticket] = _Waiting(address, now, copy)
        return ticket

    def give_up(self, ticket: int) -> None:
        """No worker took the connection."""
        if ticket != NO_TICKET:
            self._forget(ticket)

    def look(self, now: float) -> None:
        """Take in what the workers have told since."""
        if not self._waiting and not self._leaving:
            return
        states = self._board.states()
        for ticket, waiting in list(self._waiting.items()):
            state = states[ticket]
            if state == INSIDE:
                self._failures.pop(waiting.address, None)
            elif state == FAILED:
                self._note_failure(waiting.address, now)
            elif state != GONE and now < waiting.since + self._proof_s + GRACE_S:
                continue
            self._forget(ticket)
        self._thin_out(now)
        for ticket, at_latest in list(self._leaving.items()):
            if states[ticket] not in (SILENT, SPEAKS) or now > at_latest:
                del self._leaving[ticket]
                self._board.set(ticket, FREE)

    def _thin_out(self, now: float) -> None:
        """Send away those of each address that are too many, and old enough to have proved themselves."""
        if len(self._waiting) <= self._per_address:
            return
        old = [waiting.address for waiting in self._waiting.values() if waiting.since < now - YOUNG_S]
        for address, count in Counter(old).items():
            for _ in range(count - self._per_address):
                self._send_away(address)

    def _send_away(self, address: str) -> None:
        ticket = self._next_to_go(address)
        waiting = self._waiting.pop(ticket)
        with contextlib.suppress(OSError):
            waiting.socket.shutdown(socket.SHUT_RDWR)
        waiting.socket.close()
        # Free once its worker says that it is gone.
        self._leaving[ticket] = waiting.since + self._proof_s + GRACE_S

    def _next_to_go(self, address: str) -> int:
        """Who of that address has stood there longest, of those that have said nothing if there are any."""
        # They stand in the order in which they came, so the first that is silent ends the search.
        states = self._board.states()
        tickets = [ticket for ticket, waiting in self._waiting.items() if waiting.address == address]
        for ticket in tickets:
            if states[ticket] != SPEAKS and not _has_spoken(self._waiting[ticket].socket):
                return ticket
        return tickets[0]

    def _forget(self, ticket: int) -> None:
        self._waiting.pop(ticket).socket.close()
        self._board.set(ticket, FREE)

    def _note_failure(self, address: str, now: float) -> None:
        failures = self._failures.pop(address, None) or _Failures()
        failures.count += 1
        failures.until = now + min(FIRST_PENALTY_S * 2.0 ** min(failures.count - 1, 32), self._longest_penalty_s)
        self._failures[address] = failures
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def close(self) -> None:
        """In a worker: let go of the copies, which are the listener's."""
        for waiting in self._waiting.values():
            waiting.socket.close()


def _has_spoken(sock: socket.socket) -> bool:
    """Whether something has come that its worker has not read yet."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
