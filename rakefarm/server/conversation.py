"""One connection in a worker: plain blocking code that reads top to bottom, a thread each.

The thread answers quotes from the scoreboard at once, whatever runs elsewhere; only EXECUTE takes a slot.
"""

import os
import socket
import time

from rakefarm import __version__
from rakefarm.logs import logger
from rakefarm.market.bid import Facilities, Job, Refusal, bid, refuse
from rakefarm.server.action import Action
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
    Need,
    Offer,
    Quote,
    QuoteRequest,
    Term,
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

    def __init__(self, sock: socket.socket, peer: str, workplace: Workplace) -> None:
        self.transport = Transport(sock, Connection(Role.SERVER))
        self.peer = peer
        self.client = ""
        self.workplace = workplace
        self.lease = 0
        self._leased_for: tuple[str, tuple[Need, ...]] = ("", ())

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
            self.workplace.board.release(self.lease)
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
        while (message := self.transport.receive()) is not None:
            match message:
                case QuoteRequest():
                    self.transport.send(self.quote(message.kind, message.needs, message.input_bytes))
                case Execute():
                    self._execute(message)
                case Error(code, text):
                    logger.info("%s: the client gave up: %s: %s", self.peer, code, text)
                    return
                case _:
                    raise AssertionError(f"the state table let {message!r} through")

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
                slots=work.slot_count,
                cores=work.board.scoreboard.load().cores,
                isolation=work.isolation,
            )
        )
        logger.debug("%s: connected: %r, rakefarm %r", self.peer, hello.client, hello.software)

    # --- prices ---------------------------------------------------------------------------------------

    def quote(self, kind: str, needs: tuple[Need, ...], input_bytes: int) -> Quote | Decline:
        """The price now, with a place held for it in exchange for the one this connection held before."""
        board = self.workplace.board
        if self.lease:
            board.release(self.lease)
            self.lease = 0
        job = Job(kind, {need.key: need.value for need in needs}, input_bytes)
        answer = bid(
            job,
            board.scoreboard.load(),
            board.scoreboard.commitments(),
            self._facilities(job),
            self.workplace.settings.price,
        )
        if isinstance(answer, Refusal):
            return Decline(answer.reason, answer.text)
        self.lease = board.lease()
        self._leased_for = (kind, needs)
        terms = tuple([Term(name, value) for name, value in answer.terms.items()])
        return Quote(Offer(answer.price, answer.seconds, terms, self.lease, board.lease_s))

    def refusal(self, request: Execute) -> Decline | None:
        """Why this request is not taken at all, or None. A lease that holds is a promise and is not asked again."""
        board = self.workplace.board
        asked = (request.kind, request.needs)
        if request.lease == self.lease and asked == self._leased_for and board.holds(self.lease):
            if not board.scoreboard.draining:
                return None
        job = Job(
            request.kind,
            {need.key: need.value for need in request.needs},
            sum(entry.size for entry in request.manifest),
        )
        refused = refuse(job, board.scoreboard.load(), self._facilities(job), self.workplace.settings.price)
        return Decline(refused.reason, refused.text) if refused else None

    def _facilities(self, job: Job) -> Facilities:
        settings = self.workplace.settings
        tool = job.needs.get("tool", "")
        found = (
            tool
            and not {"/", "\0"} & set(tool)
            and any(os.access(os.path.join(directory, tool), os.X_OK) for directory in settings.path.split(":"))
        )
        status = os.statvfs(self.workplace.sandbox.path) if job.input_bytes else None
        return Facilities(
            tools=frozenset([tool] if found else []),
            licenses=frozenset(settings.licenses),
            disk_free=status.f_bavail * status.f_frsize if status else 1 << 62,
            draining=self.workplace.board.scoreboard.draining,
        )

    # --- commands -------------------------------------------------------------------------------------

    def _execute(self, request: Execute) -> None:
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
