"""A worker process: takes connections off the hand-over channel, a thread each, until the listener is gone."""

import contextlib
import os
import select
import socket
import sys
import threading
import time

from rakefarm import transport
from rakefarm.logs import logger
from rakefarm.server import door, handoff
from rakefarm.server.conversation import Conversation
from rakefarm.server.desk import Desk
from rakefarm.server.furnishing import CannotFurnish, Inherited, furnish
from rakefarm.server.workplace import Workplace

STACK_BYTES = 512 << 10
"""A thread's stack; a thousand idle connections are a thousand of these, touched for some 20 kB each."""
DRAIN_POLL_S = 0.05


def run_worker(inherited: Inherited) -> int:
    """In the worker, for all its life; answers its exit status."""
    try:
        work = furnish(inherited)
    except CannotFurnish as error:
        return error.status
    threading.stack_size(STACK_BYTES)
    channel, crew = inherited.channel, _Crew(work, inherited.way_in.door)
    try:
        with contextlib.suppress(OSError):  # the listener is gone already: what follows will see
            channel.send(handoff.READY)
        crew.serve(channel)
    finally:
        work.clear()
    return 0


class _Crew:
    """The worker's conversations, a thread each."""

    def __init__(self, work: Workplace, board: door.Board) -> None:
        self._work = work
        self._board = board
        self._nursery_end = work.executors.nursery_end
        self._desk = Desk(work)
        self._lock = threading.Lock()
        self._conversations: set[Conversation] = set()

    def serve(self, channel: socket.socket) -> None:
        """Until the listener is gone, or has said DRAIN and the last command has ended; or until there can be no
        executor any more, whereupon the listener starts another worker."""
        poller = select.poll()
        for descriptor in (channel.fileno(), self._nursery_end):
            poller.register(descriptor, select.POLLIN)
        while True:
            if any(descriptor == self._nursery_end for descriptor, _ in poller.poll()):
                logger.warning("the process that starts executors is dead, so this worker ends")
                return
            message, connection, ticket = handoff.receive(channel)
            if connection is not None:
                self._start(connection, ticket)
            elif message == handoff.CONNECTION:
                logger.warning("a connection was closed: this worker has no descriptor left for it")
                self._board.tell(ticket, door.GONE)
                self._work.board.count(closed=1)
            elif message == handoff.DRAIN:
                self._drain(channel)
                return
            elif not message:
                return

    def _start(self, connection: socket.socket, ticket: int) -> None:
        try:
            transport.configure(connection, self._work.settings.unacknowledged_s)
            peer = _show_address(connection.getpeername())
        except OSError:  # gone again already
            self._board.tell(ticket, door.GONE)
            self._work.board.count(closed=1)
            connection.close()
            return

        def tell(state: int) -> None:
            self._board.tell(ticket, state)

        conversation = Conversation(connection, peer, self._work, self._desk, tell)
        with self._lock:
            self._conversations.add(conversation)
        try:
            threading.Thread(target=self._converse, args=(conversation,), daemon=True).start()
        except RuntimeError:
            logger.warning("%s: closed: no thread can be started for it", peer)
            tell(door.GONE)
            self._work.board.count(closed=1)
            conversation.transport.close()
            with self._lock:
                self._conversations.discard(conversation)

    def _converse(self, conversation: Conversation) -> None:
        try:
            conversation.run()
        finally:
            with self._lock:
                self._conversations.discard(conversation)

    def _drain(self, channel: socket.socket) -> None:
        """Let what runs come to its end, close what is idle; the listener's end stops us at once.

        The listener may have read its files again: what a client does whose key is gone by now ends here, too.
        """
        self._work.audit.reopen()
        self._work.admission.reread()
        channel.setblocking(False)
        self._close_revoked()
        while self._close_idle() and not _is_readable(self._nursery_end):
            self._close_revoked()  # one may have been on its way in
            with contextlib.suppress(BlockingIOError):
                if not handoff.receive(channel)[0]:
                    return
            time.sleep(DRAIN_POLL_S)

    def _close_revoked(self) -> None:
        with self._lock:
            conversations = list(self._conversations)
        for conversation in conversations:
            visitor = conversation.visitor
            if visitor is not None and self._work.admission.is_revoked(visitor):
                logger.info("%s: closed: its key %s is gone", conversation.peer, visitor.user)
                conversation.transport.close()

    def _close_idle(self) -> int:
        """Close the idle conversations; answers how many are left at work."""
        with self._lock:
            conversations = list(self._conversations)
        busy = 0
        for conversation in conversations:
            if conversation.idle:
                conversation.transport.close()
            else:
                busy += 1
        return busy


def _is_readable(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


def _show_address(address: object) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "local"


def exit_child(status: int) -> None:
    """End a forked process without running what the parent registered for its own end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
