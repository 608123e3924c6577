"""One kept connection to a server: introduced, then asked for quotes and given actions, one thing at a time."""

import os
import select
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm import __version__, transport
from rakefarm.client.credentials import Credentials
from rakefarm.client.reach import HostFailed, Way, reach
from rakefarm.codes import Code
from rakefarm.config import ClientSettings
from rakefarm.hosts import Host
from rakefarm.levels import rank
from rakefarm.transport import Lost, Transport
from rakefarm.wire import Connection, ProtocolError, RemoteProtocolError, Role
from rakefarm.wire.errors import ConnectionCut, UnknownMessage
from rakefarm.wire.messages import (
    PROTOCOL_NAME,
    PROTOCOL_VERSIONS,
    Ack,
    Challenge,
    Decline,
    Error,
    Execute,
    Hello,
    Message,
    Offer,
    Progress,
    Proof,
    Quote,
    QuoteRequest,
    Status,
    StatusReply,
    Task,
    Wait,
    Welcome,
)

if TYPE_CHECKING:
    import ssl

    from rakefarm.security.keys import Key

NONCE_BYTES = 32
NO_CREDENTIALS = Credentials()
CUT_AGAIN = 2
"""How often a connection that the server closed in the middle of the proofs is made again at once."""
CUT_PAUSE_S = 0.1
BEAT_S = 2.0
MISSED_BEATS = 3
"""So many missed PROGRESS messages in a row, and the server is lost."""
SILENCE_S = BEAT_S * MISSED_BEATS + 1.0
"""A server that says nothing for so long while it is its turn is lost."""
BEATS_A_SECOND, BEATS_FREE = 5, 20
"""How often a server may report PROGRESS: ten times as often as it has to, and some more that were held up."""


class Trust(Struct, frozen=True):
    """What is asked of a server, and how far it is trusted: the least isolation; how slowly a message or file may come
    (bytes a second, on average; 0: at any rate); and how many bytes one action may bring (0: any number)."""

    isolation: str = "none"
    minimum_rate: int = 1 << 10
    output_size: int = 16 << 30


def trust_of(settings: ClientSettings) -> Trust:
    """As far as the settings say."""
    return Trust(settings.require_isolation, settings.minimum_rate, settings.output_size)


USUAL_TRUST = Trust()


class Link:
    """A connection to one host, past its first exchange. Not for two threads at once."""

    def __init__(self, host: str, link: Transport, welcome: Welcome, way: Way, output_size: int = 0) -> None:
        self.host = host
        self.transport = link
        self.welcome = welcome
        self._way = way
        self._output_size = output_size
        self._begin()

    def _begin(self) -> None:
        """Something new is asked for."""
        self._beats, self._beats_since, self._brought = 0, time.monotonic(), 0

    # --- asking for a price ---------------------------------------------------------------------------

    def ask(self, task: Task, request: bytes = b"") -> None:
        """Begin to ask what the task would cost, or the result of the request of this digest; `take_answer` has the
        answer. Raises Lost."""
        self._begin()
        self.transport.send(QuoteRequest(task, request))

    def wait(self, task: Task) -> None:
        """Begin to wait for a slot; `take_answer` has the answer, an offer with a lease. Raises Lost."""
        self._begin()
        self.transport.send(Wait(task))

    def take_answer(self, readable: bool) -> Offer | Decline | None:
        """The answer, or None while there is none. `readable`: poll says that something came.

        Raises Lost or a protocol error.
        """
        message = self.transport.receive_ready(readable)
        while isinstance(message, Progress):  # it lives, and we are in the queue
            self.count_beat()
            message = self.transport.receive_ready(readable=False)
        match message:
            case None | Decline():
                return message
            case Quote(offer):
                return offer
            case _:
                raise refused(message)

    def count_beat(self) -> None:
        """A PROGRESS has come. Raises RemoteProtocolError when they are more than can be meant."""
        self._beats += 1
        if self._beats > BEATS_FREE + BEATS_A_SECOND * (time.monotonic() - self._beats_since):
            raise RemoteProtocolError("the server floods us with PROGRESS")

    # --- an action ------------------------------------------------------------------------------------

    def execute(self, request: Execute) -> None:
        """Have a command executed; what follows is to be received. Raises Lost."""
        self._begin()
        self.transport.send(request)

    def count_body(self) -> None:
        """The body of the message just received is about to come. Raises RemoteProtocolError when that is too much."""
        self._brought += self.transport.connection.incoming_body
        if self._output_size and self._brought > self._output_size:
            raise RemoteProtocolError(
                f"the server sends {self._brought} bytes and more for one action; we take {self._output_size}"
                " (output_size in client.toml)"
            )

    def fresh(self) -> bool:
        """Whether the server has not closed it; an idle server says nothing, so anything readable is its end."""
        return not self.transport.wait_readable(0.0)

    def status(self) -> StatusReply:
        """How the server is now, which must have announced that it tells. Raises Lost or a protocol error."""
        self.transport.send(Status())
        message = self.receive()
        if not isinstance(message, StatusReply):
            raise refused(message)
        return message

    def acknowledge(self) -> None:
        """End an action: everything arrived. Written with the next request, or by `flush` when there is none
        soon, since a write of its own wakes the server for nothing."""
        self.transport.gather(Ack())

    def flush(self) -> None:
        """Write an acknowledgement that still waits for company. Raises Lost."""
        self.transport.flush()

    def receive(self) -> Message:
        """The next message; ERROR becomes an exception. Raises Lost or a protocol error."""
        message = self.transport.receive()
        if message is None:
            raise Lost("the server closed the connection")
        if isinstance(message, Error):
            raise refused(message)
        return message

    def give_up(self) -> None:
        """End our half: the server stops what it does for us, and then closes, which is what `receive` waits for. From
        any thread, as the next."""
        self.transport.end(read_on=True)

    def cut(self) -> None:
        """End both halves: whoever waits in `receive` waits no longer."""
        self.transport.end(read_on=False)

    def close(self) -> None:
        """Leave; the server then frees what it holds for us."""
        self.transport.close()
        self._way.close()


def refused(message: Message) -> RemoteProtocolError | Lost:
    """What a server's ERROR, or a message out of place, means for us."""
    if isinstance(message, Error):
        return Lost(f"the server gave up: {message.text}")
    return RemoteProtocolError(f"{type(message).__name__} was not expected")


def connect(
    host: Host,
    environ: Mapping[str, str],
    connect_s: float,
    credentials: Credentials = NO_CREDENTIALS,
    trust: Trust = USUAL_TRUST,
    network_s: float | None = None,
) -> Link:
    """A new link to `host`, whose port is set, past all proofs. Raises HostFailed within about `connect_s` seconds for
    each address, or `network_s` when nothing at all comes back from there."""
    for _ in range(CUT_AGAIN):
        try:
            return _connect(host, environ, connect_s, credentials, trust, network_s)
        except _CutShort:
            time.sleep(CUT_PAUSE_S)  # a server under a flood sends away some that were only about to prove themselves
    return _connect(host, environ, connect_s, credentials, trust, network_s)


def _connect(
    host: Host,
    environ: Mapping[str, str],
    connect_s: float,
    credentials: Credentials,
    trust: Trust,
    network_s: float | None,
) -> Link:
    way = reach(host, environ, credentials, connect_s, network_s)
    link = Transport(way.socket, Connection(Role.CLIENT))
    proves = credentials.context is not None and host.way != "unix"
    try:
        link.set_deadline(way.connect_s)
        certificate, key = b"", None
        if proves:
            assert credentials.context is not None
            certificate, key = _encrypt(link, credentials.context, host), credentials.key
        welcome = _introduce(link, environ, key, certificate)
        _check_isolation(welcome, trust.isolation)
        link.set_timeout(SILENCE_S)
        link.pace = transport.Pace(trust.minimum_rate, SILENCE_S) if trust.minimum_rate else None
        return Link(host.address, link, welcome, way, trust.output_size)
    except (Lost, ProtocolError, OSError) as error:
        text = transport.explain(error)
        silent = isinstance(error, Lost) and "no sign of life" in text
        if silent:
            text = f"it accepted the connection and did not answer within {way.connect_s:g} s"
        code = _code_of(error, silent)
        if (explained := way.explain(text)) != text:
            text, code = explained, Code.SSH
        link.close()
        way.close()
        cut = proves and ("closed the connection" in text or "was reset" in text or isinstance(error, ConnectionCut))
        raise (_CutShort if cut else HostFailed)(text, code) from error


class _CutShort(HostFailed):
    """It closed the connection in the middle of the proofs, without a word."""


class _NotAccepted(Lost):
    """The introduction has failed for a reason that has a code of its own."""

    def __init__(self, text: str, code: Code) -> None:
        super().__init__(text)
        self.code = code


def _code_of(error: Exception, silent: bool) -> Code:
    if isinstance(error, _NotAccepted):
        return error.code
    if isinstance(error, UnknownMessage):
        return Code.NOT_RAKEFARM
    if silent:
        return Code.SILENT
    return Code.PROTOCOL if isinstance(error, ProtocolError) and not isinstance(error, ConnectionCut) else Code.LOST


def _encrypt(link: Transport, context: "ssl.SSLContext", host: Host) -> bytes:
    """Speak TLS from now on; answers the server's certificate. Raises Lost."""
    from rakefarm.security.tls import TlsFailed, TlsStream

    tls = TlsStream(link.socket, context, server_side=False, name=host.name.rpartition("@")[2])
    try:
        tls.handshake(link.keep_deadline)
    except TlsFailed as error:
        raise _NotAccepted(f"TLS: {error}; we have a key, so it needs the same one", Code.KEY_NOT_ASKED) from error
    except BlockingIOError as error:
        raise Lost("no sign of life within the time allowed") from error
    link.encrypt(tls)
    return tls.peer_certificate


def _introduce(link: Transport, environ: Mapping[str, str], key: "Key | None", certificate: bytes) -> Welcome:
    user = environ.get("USER") or environ.get("LOGNAME") or str(os.getuid())
    nonce = os.urandom(NONCE_BYTES)
    link.send(
        Hello(
            protocol=PROTOCOL_NAME,
            versions=PROTOCOL_VERSIONS,
            capabilities=(),
            nonce=nonce,
            client=f"{user}@{socket.gethostname()}"[:200].encode("utf-8", "replace").decode(),
            software=__version__,
        )
    )
    message = _receive(link, Code.NO_KEY if key is None else Code.WRONG_KEY)
    if key is not None:
        message = _prove(link, message, key, nonce, certificate)
    if isinstance(message, Challenge):
        raise _NotAccepted("it asks for a key, and we have none: see rakefarm key --help", Code.NO_KEY)
    assert isinstance(message, Welcome)
    if message.version not in PROTOCOL_VERSIONS or not 1 <= message.slots <= 65536:
        raise RemoteProtocolError(f"the server chose version {message.version} and has {message.slots} slots")
    return message


def _prove(link: Transport, message: Message, key: "Key", nonce: bytes, certificate: bytes) -> Message:
    """Prove that we hold the key, and see that the server does; answers its WELCOME. Raises Lost."""
    from rakefarm.security.proof import check_server, prove

    if not isinstance(message, Challenge):
        text = "it asks for no key, and ours must be proved: it is another server, or has lost its key"
        raise _NotAccepted(text, Code.KEY_NOT_ASKED)
    link.send(Proof(key.name, prove(key, Role.CLIENT, nonce, message.nonce, certificate)))
    welcome = _receive(link, Code.WRONG_KEY)
    if not isinstance(welcome, Welcome) or not check_server(key, welcome.proof, nonce, message.nonce, certificate):
        raise _NotAccepted("it has not proved that it holds our key: somebody may stand between us", Code.NOT_PROVED)
    return welcome


def _receive(link: Transport, without_key: Code) -> Message:
    message = link.receive()
    if message is None:
        raise Lost("the server closed the connection")
    if isinstance(message, Error):
        codes = {"key": without_key, "version": Code.VERSION}
        raise _NotAccepted(message.text, codes.get(message.code, Code.PROTOCOL))
    return message


def _check_isolation(welcome: Welcome, required: str) -> None:
    """Raises Lost when a server confines commands less than is required."""
    if rank(welcome.isolation) < rank(required):
        text = f"its isolation is {welcome.isolation[:40]!r}, and this build requires {required!r} or more"
        raise _NotAccepted(text, Code.ISOLATION)


def wait_readable(links: list[Link], deadline: float) -> set[int]:
    """Descriptors with something to read, at the latest at `deadline` (monotonic seconds)."""
    poller = select.poll()
    for link in links:
        poller.register(link.transport.socket, select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000)}
