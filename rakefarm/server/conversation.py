"""One connection in a worker: plain blocking code that reads top to bottom, a thread each.

The thread answers quotes from the scoreboard at once, whatever runs elsewhere; only EXECUTE takes a slot.
"""

import os
import socket
import time

from rakefarm import __version__
from rakefarm.logs import logger
from rakefarm.market.needs import Refusal
from rakefarm.server.action import BEAT_S, Action
from rakefarm.server.desk import Desk, job_of, licenses_of
from rakefarm.server.grants import Lease
from rakefarm.server.turn import wait_for_grant
from rakefarm.server.workplace import Workplace
from rakefarm.transport import Lost, Transport
from rakefarm.wire import Connection, ProtocolError, RemoteProtocolError, Role, State
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.messages import (
    PROTOCOL_NAME,
    PROTOCOL_VERSIONS,
    Decline,
    Error,
    Execute,
    Hello,
    Message,
    Offer,
    Progress,
    Quote,
    QuoteRequest,
    Task,
    Term,
    Wait,
    Welcome,
)

CAPABILITIES = ("store", "produces")
NONCE_BYTES = 32
GREETING_S = 10.0
"""A connection that has not introduced itself after this long is closed; a thread waits for it."""
FAREWELL_S = 1.0
DISCARD_BYTES = 64 << 10


class Refused(Exception):
    """The conversation ends with an ERROR of this code and text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Conversation:
    """Talks with one client until it leaves, breaks the protocol, or is lost."""

    def __init__(self, sock: socket.socket, peer: str, workplace: Workplace, desk: Desk) -> None:
        self.transport = Transport(sock, Connection(Role.SERVER))
        self.peer = peer
        self.client = ""
        self.workplace = workplace
        self.desk = desk
        self._lease: Lease | None = None
        self._leases = 0

    @property
    def idle(self) -> bool:
        """True while nothing of this client's is being done."""
        return self.transport.connection.state in (State.GREETING, State.READY, State.CLOSED)

    def run(self) -> None:
        """In the connection's thread: the whole conversation. Nothing it raises leaves, all of it is logged."""
        try:
            self._converse()
        except Lost as error:
            logger.debug("%s: lost: %s", self.peer, error)
        except (Refused, ProtocolError) as error:
            logger.warning("%s: closed: %s", self.peer, error)
            self._give_up(error.code, str(error) if isinstance(error, Refused) else error.text)
        except Exception:
            logger.exception("%s: a fault of the server, after %s", self.peer, self.transport.connection.story)
            self._give_up("internal", "the server met a fault of its own; its log says more")
        finally:
            self._give_lease_back()
            self.workplace.board.count(closed=1)
            self.transport.close()

    def _give_up(self, code: str, text: str) -> None:
        """Tell the peer why, whoever's turn it is; it may be gone."""
        sock = self.transport.socket
        try:
            sock.settimeout(FAREWELL_S)
            sock.sendall(self.transport.connection.farewell(Error(code, text[:500])))
            sock.shutdown(socket.SHUT_WR)
            # To close with something unread is a reset, which may overtake what we said.
            until = time.monotonic() + FAREWELL_S
            while sock.recv(DISCARD_BYTES) and time.monotonic() < until:
                pass
        except OSError:
            pass

    def _converse(self) -> None:
        self.transport.set_timeout(GREETING_S)
        greeting = self.transport.receive()
        if greeting is None:
            return
        assert isinstance(greeting, Hello)
        self._welcome(greeting)
        self.transport.set_timeout(0)
        while (message := self._next()) is not None:
            match message:
                case QuoteRequest(task):
                    self._give_lease_back()
                    self.transport.send(self._answer(task))
                case Wait(task):
                    self._wait(task)
                case Execute():
                    self._execute(message)
                case Error(code, text):
                    logger.info("%s: the client gave up: %s: %s", self.peer, code, text)
                    return
                case _:
                    raise AssertionError(f"the state table let {message!r} through")

    def _next(self) -> Message | None:
        """The next message; a lease that the client does not use in time is given back while we wait for it."""
        if self._lease is not None and not self.transport.wait_readable(self.workplace.settings.lease_s):
            self._give_lease_back()
        return self.transport.receive()

    def _welcome(self, hello: Hello) -> None:
        self.client = hello.client
        if hello.protocol != PROTOCOL_NAME:
            raise Refused("protocol", f"this is a rakefarm server; the client asked for {hello.protocol!r}")
        common = [version for version in PROTOCOL_VERSIONS if version in hello.versions]
        if not common:
            raise Refused(
                "version",
                f"this server (rakefarm {__version__}) speaks protocol version {PROTOCOL_VERSIONS[0]}, the client"
                f" ({hello.software}) {', '.join(map(str, hello.versions)) or 'none'}: install one release on both",
            )
        work = self.workplace
        self.transport.send(
            Welcome(
                version=common[0],
                capabilities=CAPABILITIES,
                nonce=os.urandom(NONCE_BYTES),
                server=work.name,
                software=__version__,
                slots=work.settings.slots,
                cores=work.board.scoreboard.load().cores,
                isolation=work.isolation,
            )
        )
        logger.debug("%s: connected: %r, rakefarm %r", self.peer, hello.client, hello.software)

    # --- prices ---------------------------------------------------------------------------------------

    def _answer(self, task: Task, lease: int = 0) -> Quote | Decline:
        """The price now, with the lease that goes with it, or why there is none."""
        answer = self.desk.price(task, leased=int(lease > 0))
        if isinstance(answer, Refusal):
            return Decline(answer.reason, answer.text)
        terms = tuple([Term(name, value) for name, value in answer.terms.items()])
        valid_s = self.workplace.settings.lease_s if lease else answer.curve.valid_s
        return Quote(Offer(answer.price, answer.seconds, terms, lease, valid_s, answer.curve))

    def _wait(self, task: Task) -> None:
        """Answer when a slot is free, and hold it for the client for a moment."""
        refused = self.desk.refusal(job_of(task), self.desk.look())
        if refused is not None:
            self.transport.send(Decline(refused.reason, refused.text))
            return
        self._give_lease_back()
        began = time.monotonic()
        beat_at = began + BEAT_S

        def beat() -> None:
            nonlocal beat_at
            if time.monotonic() >= beat_at:
                self.transport.send(Progress("waiting", time.monotonic() - began, 0.0, 0))
                beat_at = time.monotonic() + BEAT_S

        grant = wait_for_grant(self.workplace, self.transport, licenses_of(task), beat)
        self._leases += 1
        self._lease = Lease(self._leases, grant, task.needs)
        answer = self._answer(task, self._leases)
        if isinstance(answer, Decline):
            self._give_lease_back()
        self.transport.send(answer)

    def take_lease(self, number: int) -> Lease | None:
        """The lease of this number if it still holds, from now on the caller's to use or give back."""
        if self._lease is None or self._lease.number != number:
            return None
        lease, self._lease = self._lease, None
        return lease

    def give_back(self, lease: Lease) -> None:
        """Nothing comes of a lease."""
        self.workplace.board.count(leased=-1)
        self.workplace.grants.give_back(lease.grant)

    def _give_lease_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self.give_back(lease)

    # --- commands -------------------------------------------------------------------------------------

    def _execute(self, request: Execute) -> None:
        if self._lease is not None and request.lease != self._lease.number:
            self._give_lease_back()
        try:
            Action(request, self).run()
        except UnsafePath as error:
            raise Refused(error.code, str(error)) from error

    def expect(self, *kinds: type[Message]) -> Message:
        """The client's next message, which the state table has let through. Raises Lost when it ended instead."""
        message = self.transport.receive()
        if message is None:
            raise Lost("the client closed the connection")
        if isinstance(message, Error):
            raise Lost(f"the client gave up: {message.text}")
        if not isinstance(message, kinds):
            raise RemoteProtocolError(f"{type(message).__name__} was not expected")
        return message
