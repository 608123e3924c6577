"""One connection in a worker: plain blocking code that reads top to bottom, a thread each.

The thread answers quotes from the scoreboard at once, whatever runs elsewhere; only EXECUTE takes a slot.
"""

import socket
import time
from collections.abc import Callable

from msgspec import structs

from rakefarm import __version__
from rakefarm.logs import logger
from rakefarm.market.needs import Refusal
from rakefarm.server import door
from rakefarm.server.action import BEAT_S, SUPPLY_S, Action
from rakefarm.server.admission import NotAdmitted, Refused, Visitor
from rakefarm.server.audit import shown
from rakefarm.server.desk import Desk, job_of, licenses_of
from rakefarm.server.grants import Lease
from rakefarm.server.roster import short
from rakefarm.server.staging import check_manifest
from rakefarm.server.status import status
from rakefarm.server.turn import wait_for_grant
from rakefarm.server.users import number_of
from rakefarm.server.workplace import Workplace
from rakefarm.transport import Lost, Pace, Transport
from rakefarm.wire import Connection, ProtocolError, RemoteProtocolError, Role, State
from rakefarm.wire.errors import ConnectionCut, UnsafePath
from rakefarm.wire.messages import (
    Ack,
    Decline,
    Delivered,
    Error,
    Execute,
    Message,
    Offer,
    Progress,
    Quote,
    QuoteRequest,
    Status,
    Task,
    Term,
    Wait,
    Welcome,
)
from rakefarm.wire.state import GREETINGS

KEPT = Term("kept", 0.0)
"""The price of what needs not be run."""
CAPABILITIES = ("store", "produces", "status")
FAREWELL_S = 1.0
IDLE = frozenset({*GREETINGS, State.READY, State.CLOSED})


class _Draining(Exception):
    """The server takes no new work: nobody should stand in its queue any more."""


class Conversation:
    """Talks with one client until it leaves, breaks the protocol, or is lost."""

    def __init__(
        self, sock: socket.socket, peer: str, workplace: Workplace, desk: Desk, tell_door: Callable[[int], None]
    ) -> None:
        self.transport = Transport(sock, Connection(Role.SERVER))
        self.peer = peer
        self.visitor: Visitor | None = None
        self._names = b"", b""
        self._tell_door = tell_door
        self._verdict = door.GONE
        self.workplace = workplace
        self.desk = desk
        self._lease: Lease | None = None
        self._leases = 0
        self.user = 0
        """The number of the user that the client has proved to be, or says it is: they get slots in turn."""

    @property
    def idle(self) -> bool:
        """True while nothing of this client's is being done."""
        return self.transport.connection.state in IDLE

    def run(self) -> None:
        """In the connection's thread: the whole conversation. Nothing it raises leaves, all of it is logged."""
        try:
            self._converse()
        except Lost as error:
            logger.debug("%s: lost: %s", self.peer, error)
        except (Refused, ProtocolError) as error:
            if self.visitor is None:
                self._note_refusal(error)
            logger.warning("%s: closed: %s", self.peer, error)
            if error.code:
                self._give_up(error.code, str(error) if isinstance(error, Refused) else error.text)
        except Exception:
            logger.exception("%s: a fault of the server, after %s", self.peer, self.transport.connection.story)
            self._give_up("internal", "the server met a fault of its own; its log says more")
        finally:
            self._give_lease_back()
            self.workplace.board.count(closed=1)
            self.transport.close()
            if self.visitor is None:
                self._tell_door(self._verdict)

    def _give_up(self, code: str, text: str) -> None:
        self.transport.say_farewell(Error(code, text[:500]), FAREWELL_S)

    def _note_refusal(self, error: Exception) -> None:
        """Somebody who is nobody yet has lost its connection; when that was its fault, its address bears it."""
        failed = isinstance(error, NotAdmitted | ProtocolError) and not isinstance(error, ConnectionCut)
        self._verdict = door.FAILED if failed else door.GONE
        if failed and self.workplace.admission.asks:
            self.workplace.audit.write("refused", self.peer, reason=shown(str(error)))

    def _converse(self) -> None:
        settings = self.workplace.settings
        self.transport.set_deadline(settings.proof_s)
        visitor = self.workplace.admission.admit(self.transport, lambda: self._tell_door(door.SPEAKS))
        if visitor is None:
            return
        self.visitor, self.user = visitor, number_of(visitor.user)
        self._names = short(shown(visitor.user)), short(shown(visitor.client))
        self._tell_door(door.INSIDE)
        self._welcome(visitor)
        self.transport.set_timeout(settings.idle_s)
        self.transport.pace = Pace(settings.minimum_rate, SUPPLY_S) if settings.minimum_rate else None
        while (message := self._next()) is not None:
            match message:
                case QuoteRequest(task, request):
                    self._give_lease_back()
                    answer = self._answer(task)
                    if request and isinstance(answer, Quote) and self.workplace.results.has(request, task):
                        answer = Quote(structs.replace(answer.offer, price=0.0, seconds=0.0, terms=(KEPT,)))
                    self.transport.send(answer)
                case Wait(task):
                    self._wait(task)
                case Status():
                    self._give_lease_back()
                    self.transport.send(status(self.workplace, self.desk))
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

    def _welcome(self, visitor: Visitor) -> None:
        work = self.workplace
        self.transport.send(
            Welcome(
                version=visitor.version,
                capabilities=CAPABILITIES,
                proof=visitor.proof,
                authentication=visitor.authentication,
                server=work.name,
                software=__version__,
                slots=work.settings.slots,
                cores=work.board.scoreboard.load().cores,
                isolation=work.executors.confinement.level,
                missing=work.executors.confinement.missing(),
            )
        )
        logger.debug(
            "%s: connected: %r by %s, says %r, rakefarm %r",
            self.peer,
            visitor.user,
            visitor.authentication,
            visitor.client,
            visitor.software,
        )

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
            if self.workplace.board.scoreboard.draining:
                raise _Draining
            if time.monotonic() >= beat_at:
                self.transport.send(Progress("waiting", time.monotonic() - began, 0.0, 0))
                beat_at = time.monotonic() + BEAT_S

        try:
            grant = wait_for_grant(self.workplace, self.transport, licenses_of(task), self.user, beat)
        except _Draining:
            self.transport.send(self._answer(task))
            return
        self._leases += 1
        self._lease = Lease(self._leases, grant, task)
        self.enter(grant.slot, "")
        answer = self._answer(task, self._leases)
        if isinstance(answer, Decline):
            self._give_lease_back()
        self.transport.send(answer)

    def enter(self, slot: int, label: str) -> None:
        """Say whose the slot is, for people."""
        self.workplace.board.enter(slot, *self._names, short(label))

    def take_lease(self, number: int) -> Lease | None:
        """The lease of this number if it still holds, from now on the caller's to use or give back."""
        if self._lease is None or self._lease.number != number:
            return None
        lease, self._lease = self._lease, None
        return lease

    def give_back(self, lease: Lease) -> None:
        """Nothing comes of a lease."""
        self.workplace.board.count(leased=-1)
        self.workplace.board.let_go(lease.grant.slot)
        self.workplace.grants.give_back(lease.grant)

    def _give_lease_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self.give_back(lease)

    # --- commands -------------------------------------------------------------------------------------

    def _execute(self, request: Execute) -> None:
        if self._lease is not None and request.lease != self._lease.number:
            self._give_lease_back()
        key = self.workplace.results.key(request)
        action, began = Action(request, self, key), time.monotonic()
        try:
            if key is not None and self._answer_kept(request, key):
                action.outcome = "kept"
            else:
                action.run()
        except UnsafePath as error:
            raise Refused(error.code, str(error)) from error
        finally:
            if action.outcome and self.workplace.audit.kept:
                self._keep(request, action, time.monotonic() - began)

    def _answer_kept(self, request: Execute, key: bytes) -> bool:
        """Answer with the result of an earlier run, which takes no slot; False when there is none, or the server could
        not take the action now at all."""
        work = self.workplace
        check_manifest(request.manifest, request.produces)
        kept = work.results.find(request, key)
        if kept is None:
            return False
        job, seen = job_of(request.task), self.desk.look()
        if self.desk.refusal(job, seen) is not None or not work.results.write(self.transport, kept):
            return False
        self._give_lease_back()
        self.transport.send(Delivered((self.desk.curve(job, seen),)))
        self.expect(Ack)
        return True

    def _keep(self, request: Execute, action: Action, elapsed_s: float) -> None:
        """A line of the audit log."""
        visitor = self.visitor
        assert visitor is not None, "nobody else gets as far as this"
        self.workplace.audit.write(
            "ran",
            self.peer,
            user=visitor.user,
            authentication=visitor.authentication,
            client=shown(visitor.client),
            command=shown(request.command),
            label=shown(request.label),
            outcome=action.outcome,
            status=action.status,
            elapsed_s=round(elapsed_s, 3),
        )

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
