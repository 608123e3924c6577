"""Waiting for a grant, in turn: who has waited longest is served first, over all workers of the server.

Clients hold one place in the queue at a time, so first come, first served is also turn by turn among them. Who finds
that it isn't its turn leaves the slot alone; but a worker that stands still (stopped, say) would hold up everyone, so
a slot that stays free for a while is taken out of turn.
"""

import select
import time
from collections.abc import Callable, Sequence

from rakefarm.server.grants import Grant
from rakefarm.server.slots import LOOK_AGAIN_S
from rakefarm.server.workplace import Workplace
from rakefarm.transport import Lost, Transport

PATIENCE_S = 0.5
"""How long a free slot may stay with a waiter that does not take it."""
GIVE_WAY_MS = 5


def take_now(work: Workplace, licenses: Sequence[str]) -> Grant | None:
    """A grant without waiting, unless somebody else waits for one."""
    return work.grants.try_take(licenses) if work.board.is_next(None) else None


def wait_for_grant(work: Workplace, transport: Transport, licenses: Sequence[str], beat: Callable[[], None]) -> Grant:
    """A grant, as soon as it is our turn, counted as leased; `beat` is called several times a second. Raises Lost when
    the client, who may not speak now, is gone."""
    grant = take_now(work, licenses)
    if grant is not None:
        work.board.count(leased=1)
        return grant
    turn = work.board.queue()
    try:
        everything, client = select.poll(), select.poll()
        for poller in (everything, client):
            poller.register(transport.socket, select.POLLIN | select.POLLRDHUP)
        everything.register(work.grants.event, select.POLLIN)
        passed_over: float | None = None
        while True:
            ready = everything.poll(LOOK_AGAIN_S * 1000)
            check_client(transport, ready)
            beat()
            waited_s = 0.0 if passed_over is None else time.monotonic() - passed_over
            if work.board.is_next(turn) or waited_s > PATIENCE_S:
                passed_over = None
                grant = work.grants.try_take(licenses, woken=True)
                if grant is not None:
                    # Before the queue is left, or a curve made in between would show a slot that is nobody's.
                    work.board.count(leased=1)
                    return grant
            elif ready:
                # The event stays as it is, for whose turn it is.
                passed_over = passed_over or time.monotonic()
                check_client(transport, client.poll(GIVE_WAY_MS))
    finally:
        work.board.leave_queue(turn)


def check_client(transport: Transport, ready: Sequence[tuple[int, int]]) -> None:
    """While a command waits or runs, anything readable from the client means that it is gone, or broke the protocol."""
    if any(descriptor == transport.socket.fileno() for descriptor, _ in ready):
        raise Lost("the client left while its command was waiting or running")
