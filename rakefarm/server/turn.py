"""Waiting for a grant, in turn between users (see `users`), over all workers of the server.

Who finds that it isn't its turn leaves the slot alone; but a worker that stands still (stopped, say) would hold up
everyone, so a slot that stays free for a while is taken out of turn. And who waits for a licence that others hold steps
aside, since it could not use a slot: it is next again once the licence is free.

Where this user's builds share the slots, there is no order among their servers: who comes while another waits leaves
the next slot to those who wait, and from then on whoever wakes first has it.
"""

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rakefarm.market.turns import Rank
from rakefarm.server.grants import Grant
from rakefarm.server.workplace import Workplace
from rakefarm.slots import GIVE_WAY_S, LOOK_AGAIN_S
from rakefarm.transport import Lost

PATIENCE_S = 0.5
"""How long a free slot may stay with a waiter that does not take it."""
LICENSE_LOOK_MS = 50
"""How often who has stepped aside looks whether the licence is free."""


class Visitor(Protocol):
    """Who waits for the end, as far as it matters here: what comes through its socket, or its end, ends the waiting."""

    socket: socket.socket


def take_now(work: Workplace, licenses: Sequence[str], user: int) -> Grant | None:
    """A grant for that user without waiting, unless somebody else waits for one."""
    return try_take(work, licenses, user) if work.board.is_next(None) else None


def try_take(work: Workplace, licenses: Sequence[str], user: int) -> Grant | None:
    """A grant for that user if one is free and nobody waits whom the scoreboard does not know."""
    if work.grants.others_wait:
        return None
    grant = work.grants.try_take(licenses)
    if grant is not None:
        work.board.hold(grant.slot, user)
    return grant


def wait_for_grant(
    work: Workplace, transport: Visitor, licenses: Sequence[str], user: int, beat: Callable[[], None]
) -> Grant:
    """A grant for that user, as soon as it is our turn, counted as leased; `beat` is called several times a second.

    Raises Lost when the client, who may not speak now, is gone.
    """
    grant = take_now(work, licenses, user)
    if grant is not None:
        work.board.count(leased=1)
        return grant
    turn = work.board.queue(user)
    try:
        with work.grants.waiting():
            return _wait_in_turn(work, transport, licenses, user, beat, turn)
    finally:
        work.board.leave_queue(turn)


def _wait_in_turn(
    work: Workplace, transport: Visitor, licenses: Sequence[str], user: int, beat: Callable[[], None], turn: int
) -> Grant:
    board = work.board
    client, everything = _poller(transport), _poller(transport, work.grants.event)
    aside = looked_aside = False
    passed_over = _PassedOver()
    if work.grants.others_wait:
        check_client(transport, client.poll(GIVE_WAY_S * 1000))
    while True:
        before, aside = aside, bool(work.grants.lacking(licenses))
        if aside != before:
            board.step_aside(turn, aside)
        tokens = () if aside else work.grants.token_readers
        if aside or tokens:
            check_client(transport, _poller(transport, *tokens).poll(LICENSE_LOOK_MS))
            beat()
            looked_aside = True
            continue
        ready = everything.poll(0)
        if not ready:
            passed_over.reset()  # no slot stands free
            ready = everything.poll(0 if looked_aside else LOOK_AGAIN_S * 1000)
        looked_aside = False
        check_client(transport, ready)
        beat()
        if board.is_next(turn) or passed_over.long_enough:
            passed_over.reset()
            grant = work.grants.try_take(licenses, woken=True)
            if grant is not None:
                board.hold(grant.slot, user)
                # Before the queue is left, or a curve made in between would show a slot that is nobody's.
                work.board.count(leased=1)
                return grant
        elif ready:
            # The event stays as it is, for whose turn it is.
            passed_over.note(board.scoreboard.users.next_in_turn())
            check_client(transport, client.poll(GIVE_WAY_S * 1000))


def _poller(transport: Visitor, *others: int) -> select.poll:
    poller = select.poll()
    poller.register(transport.socket, select.POLLIN | select.POLLRDHUP)
    for descriptor in others:
        poller.register(descriptor, select.POLLIN)
    return poller


class _PassedOver:
    """How long a free slot has stood with one waiter."""

    def __init__(self) -> None:
        self._by: Rank | None = None
        self._since = 0.0

    def reset(self) -> None:
        """It does no longer."""
        self._by = None

    def note(self, following: Rank | None) -> None:
        """It does, and it is the turn of who stands there."""
        if self._by != following:
            self._by, self._since = following, time.monotonic()

    @property
    def long_enough(self) -> bool:
        """Whether who would be next can't be at work."""
        return self._by is not None and time.monotonic() - self._since > PATIENCE_S


def check_client(transport: Visitor, ready: Sequence[tuple[int, int]]) -> None:
    """While a command waits or runs, anything readable from the client means that it is gone, or broke the protocol."""
    if any(descriptor == transport.socket.fileno() for descriptor, _ in ready):
        raise Lost("the client left while its command was waiting or running")
