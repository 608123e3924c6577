"""One bot: a slot of this server's as the engine sees it, by the Remote Workers API.

    CreateBotSession ─► UpdateBotSession … : asks for a lease (the call then waits at the engine), or
                        tells that its lease is still being worked on, or has ended. A lease that the answer
                        lacks has been withdrawn: what it runs is ended.

The engine counts a bot as lost that is silent for too long, and gives its action to another; so does it when the same
bot opens a session anew, as it does after this server was killed.
"""

import threading
import time
from typing import Any

from google.protobuf.message import DecodeError
from msgspec import Struct

from rakefarm.engine.api import bots_pb2, status_pb2
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.channel import LONGEST_PAUSE_S, Channel
from rakefarm.engine.content import read_digest
from rakefarm.engine.errors import EngineError, EngineRefuses, EngineUnbelievable
from rakefarm.engine.methods import CREATE_BOT_SESSION, UPDATE_BOT_SESSION
from rakefarm.engine.quiet_grpc import grpc
from rakefarm.logs import logger
from rakefarm.server.join.ending import invalid, unavailable
from rakefarm.server.join.lease import Colleagues, Lease, Withdrawn
from rakefarm.server.join.offer import Offer

BEAT_S = 1.0
"""How often a bot at work says so, and hears whether its lease still stands."""
ASK_S = 20.0
"""How long a call that asks for a lease may take; engines answer at four fifths of it."""
CALL_S = 15.0
LOOK_AGAIN_S = 0.25
"""How often a bot that may not ask looks whether it may now."""
UNHEALTHY_BEAT_S = 2.0
REFUSED_PAUSE_S = 15.0
END_S = 10.0
LEASE_ID_CHARACTERS = 400


class Work(Struct):
    """A lease that a thread is at, and what came of it."""

    lease: bots_pb2.Lease
    performer: Lease
    thread: threading.Thread
    done: bool = False
    withdrawn: bool = False


class Station(Struct, frozen=True):
    """What all bots of a server have in common; `say` is told what is new between us and the engine, and says each
    thing once."""

    channel: Channel
    shared: Colleagues
    machine: bots_pb2.Worker
    offer: Offer
    say: Any


class Bot:
    """`run` in a thread of its own, until `drain`, or the process ends."""

    def __init__(self, number: int, name: str, station: Station) -> None:
        self._number = number
        self._name = name
        self._station = station
        self._channel = station.channel
        self._session = bots_pb2.BotSession()
        self._work: Work | None = None
        self._wake = threading.Event()
        self._draining = False
        self._ended = False

    def drain(self) -> None:
        """Take no more; what it is at comes to its end."""
        self._draining = True
        self._wake.set()

    def run(self) -> None:
        """One session after another."""
        pause_s = BEAT_S
        while not self._ended:
            try:
                self._open()
                self._station.say("")
                pause_s = BEAT_S
                while not self._ended:
                    self._go_on()
            except EngineError as error:
                self._station.say(str(error))
                if isinstance(error, EngineRefuses | EngineUnbelievable):
                    self._withdraw()  # the session is no more, and its lease is another's by now
                if self._draining:
                    return
                refused = isinstance(error, EngineRefuses) and (error.is_about_access or error.about == "TLS")
                self._wake.wait(REFUSED_PAUSE_S if refused else pause_s)
                pause_s = min(2 * pause_s, 8 * LONGEST_PAUSE_S)

    def _open(self) -> None:
        """A new session; nobody is given anything in it before it has asked."""
        self._withdraw()
        asked = bots_pb2.BotSession(bot_id=self._name, status=bots_pb2.UNHEALTHY, worker=self._station.machine)
        request = bots_pb2.CreateBotSessionRequest(parent=self._channel.address.instance, bot_session=asked)
        self._session = self._channel.call_first(CREATE_BOT_SESSION, request, CALL_S)

    def _go_on(self) -> None:
        """One exchange, and what it leads to."""
        self._wake.clear()
        work = self._work
        if work is not None:
            if not work.done:
                self._wake.wait(BEAT_S)
            self._exchange(work)
        elif self._draining:
            self._tell(bots_pb2.BOT_TERMINATING, None, CALL_S)
            self._ended = self._work is None
        elif self._station.offer.try_ask(self._number):
            try:
                self._ask()
            finally:
                self._station.offer.stop_asking(self._number)
        else:
            self._tell(bots_pb2.UNHEALTHY, None, CALL_S)
            self._look_again()

    def _look_again(self) -> None:
        """Until a slot may be free, or it is time to say that we live."""
        until = time.monotonic() + UNHEALTHY_BEAT_S
        while time.monotonic() < until and not self._wake.wait(LOOK_AGAIN_S):
            if self._station.offer.try_ask(self._number):
                self._station.offer.stop_asking(self._number)
                return

    def _ask(self) -> None:
        self._tell(bots_pb2.OK, None, ASK_S)

    def _exchange(self, work: Work) -> None:
        """Say how far the lease is; with its end, that another may come, if one may."""
        status = bots_pb2.BOT_TERMINATING if self._draining else bots_pb2.UNHEALTHY
        done = work.done
        if done and not self._draining and self._station.offer.try_ask(self._number):
            status = bots_pb2.OK
        lease = work.lease if done else bots_pb2.Lease(id=work.lease.id, state=bots_pb2.ACTIVE)
        try:
            self._tell(status, lease, CALL_S)
        finally:
            self._station.offer.stop_asking(self._number)

    # --- one call -------------------------------------------------------------------------------------

    def _tell(self, status: "bots_pb2.BotStatus", lease: bots_pb2.Lease | None, seconds: float) -> None:
        """Say how we stand and take in how the engine sees it. Raises EngineError."""
        session = bots_pb2.BotSession()
        session.CopyFrom(self._session)
        session.status = status
        del session.leases[:]
        if lease is not None:
            session.leases.add().CopyFrom(lease)
        request = bots_pb2.UpdateBotSessionRequest(name=session.name, bot_session=session)
        answer = self._call(request, seconds)
        if answer is None:
            return  # cut short by us: what it may have brought comes with the next answer
        if answer.name != session.name or len(answer.leases) > 8:
            raise EngineUnbelievable(f"{self._channel.address.name}: an answer that is another session's")
        self._session = answer
        self._take(list(answer.leases), lease is not None and lease.state == bots_pb2.COMPLETED)

    def _call(self, request: bots_pb2.UpdateBotSessionRequest, seconds: float) -> bots_pb2.BotSession | None:
        future = self._channel.once(UPDATE_BOT_SESSION, request, seconds)
        future.add_done_callback(lambda _: self._wake.set())
        while not future.done():
            self._wake.wait()
            if not future.done():
                self._wake.clear()
                if self._draining and self._work is None:
                    future.cancel()
                    return None
        try:
            answer: bots_pb2.BotSession = future.result()
        except grpc.FutureCancelledError:
            return None
        except grpc.RpcError as error:
            raise self._channel.explain(error, UPDATE_BOT_SESSION) from error
        finally:
            self._wake.clear()
        return answer

    def _take(self, leases: list[bots_pb2.Lease], told: bool) -> None:
        """Begin what is new, end what is no longer there; `told` is whether the engine has been told of its end."""
        work = self._work
        if work is not None and (told or not any(_stands(lease, work.lease.id) for lease in leases)):
            self._withdraw()
        for lease in leases:
            if work is not None and lease.id == work.lease.id:
                continue
            if lease.state in (bots_pb2.ACTIVE, bots_pb2.PENDING):
                self._begin(lease)

    def _begin(self, lease: bots_pb2.Lease) -> None:
        if self._work is not None or self._draining:
            # More than we have asked for, or too late: it is given back at once, for another to have.
            status = unavailable(self._station.shared.work.name, "it takes no more")
            given_back = bots_pb2.Lease(id=lease.id, state=bots_pb2.COMPLETED, status=status)
            self._tell(bots_pb2.BOT_TERMINATING if self._draining else bots_pb2.UNHEALTHY, given_back, CALL_S)
            return
        kept = bots_pb2.Lease(id=lease.id[:LEASE_ID_CHARACTERS], state=bots_pb2.ACTIVE, payload=lease.payload)
        try:
            action = self._read_action(lease)
        except (EngineUnbelievable, EngineRefuses, DecodeError) as error:
            kept.state = bots_pb2.COMPLETED
            kept.status.CopyFrom(invalid(f"a lease that is no action: {error}"))
            action = api.Action()
        performer = Lease(self._station.shared, self._name, action)
        work = Work(kept, performer, threading.Thread(target=self._perform, daemon=True, name=self._name))
        self._work = work
        if kept.state == bots_pb2.COMPLETED:
            work.done = True
            return
        work.thread.start()

    def _read_action(self, lease: bots_pb2.Lease) -> api.Action:
        """A lease brings its action, or the digest of it."""
        action = api.Action()
        if lease.payload.Unpack(action):
            return action
        digest = api.Digest()
        if not lease.payload.Unpack(digest):
            raise EngineUnbelievable(f"it holds a {lease.payload.type_url[:100]}")
        place = read_digest(digest)
        return api.Action.FromString(self._station.shared.messages.read([place], self._station.shared.blobs)[place])

    def _withdraw(self) -> None:
        """Whatever it is at is over; answers when nothing of it runs any more."""
        work, self._work = self._work, None
        if work is None:
            return
        work.withdrawn = True
        if work.thread.ident is not None:
            if not work.done:
                work.performer.withdraw()
            work.thread.join(END_S)

    # --- in the lease's thread ------------------------------------------------------------------------

    def _perform(self) -> None:
        work = self._work
        assert work is not None
        result: api.ActionResult | None = None
        try:
            result, status = work.performer.run()
        except Withdrawn:
            logger.debug("%s: a lease was withdrawn", self._name)
            return
        except Exception:
            logger.exception("%s: a fault of the server", self._name)
            status = unavailable(self._station.shared.work.name, "the server met a fault of its own; its log says more")
        self._finish(work, result, status)

    def _finish(self, work: Work, result: api.ActionResult | None, status: status_pb2.Status) -> None:
        if work.withdrawn:
            return
        if result is not None:
            work.lease.result.Pack(result)
        work.lease.status.CopyFrom(status)
        work.lease.state = bots_pb2.COMPLETED
        work.lease.ClearField("payload")
        work.done = True
        self._wake.set()


def _stands(lease: bots_pb2.Lease, name: str) -> bool:
    """Whether it is the lease of that name, and still ours."""
    return lease.id == name and lease.state != bots_pb2.CANCELLED
