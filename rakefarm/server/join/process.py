"""The process that runs an engine's leases: one bot a slot, until the listener is gone or has said that we drain.

gRPC starts threads of its own and must not be there when a process forks, so it is loaded here, after the nursery has
been forked, and nowhere else in a server.
"""

import contextlib
import select
import socket
import threading
import time

from rakefarm.config import ConfigError
from rakefarm.logs import logger
from rakefarm.server import handoff
from rakefarm.server.desk import Desk
from rakefarm.server.furnishing import NOT_NOW, CannotFurnish, Inherited, furnish
from rakefarm.server.workplace import Workplace

POLL_S = 0.05


def run_joined(inherited: Inherited) -> int:
    """In that process, for all its life; answers its exit status."""
    try:
        work = furnish(inherited)
    except CannotFurnish as error:
        return error.status
    channel = inherited.channel
    try:
        with contextlib.suppress(OSError):  # the listener is gone already: what follows will see
            channel.send(handoff.READY)
        _serve(work, channel)
    except ConfigError as error:
        logger.error("can't join %s: %s", work.settings.engine.url, error)
        return NOT_NOW
    finally:
        work.clear()
    return 0


def _serve(work: Workplace, channel: socket.socket) -> None:
    from rakefarm.server.join.crew import make_bots

    bots = make_bots(work, Desk(work))
    threads = [threading.Thread(target=bot.run, daemon=True) for bot in bots]
    for thread in threads:
        thread.start()
    if not _wait_to_drain(work, channel):
        return
    work.audit.reopen()
    for bot in bots:
        bot.drain()
    channel.setblocking(False)
    while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(BlockingIOError):
            if not handoff.receive(channel)[0]:
                return
        time.sleep(POLL_S)


def _wait_to_drain(work: Workplace, channel: socket.socket) -> bool:
    """Until the listener says so, or there can be no executor any more: then its leases end as faults of this machine,
    and the listener starts another process in our place. False when the listener is gone, and nothing is to wait for.
    """
    poller = select.poll()
    for descriptor in (channel.fileno(), work.executors.nursery_end):
        poller.register(descriptor, select.POLLIN)
    if any(descriptor == work.executors.nursery_end for descriptor, _ in poller.poll()):
        logger.warning("the process that starts executors is dead, so the one that serves the engine ends")
        return True
    return handoff.receive(channel)[0] == handoff.DRAIN
