"""One kept connection to a server: introduced, then asked for quotes and given actions, one thing at a time."""

import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping

from rakefarm import __version__, transport
from rakefarm.hosts import Host
from rakefarm.transport import Lost, Transport
from rakefarm.wire import Connection, ProtocolError, RemoteProtocolError, Role
from rakefarm.wire.messages import (
    PROTOCOL_NAME,
    PROTOCOL_VERSIONS,
    Ack,
    Decline,
    Error,
    Hello,
    Message,
    Offer,
    Progress,
    Quote,
    QuoteRequest,
    Task,
    Wait,
    Welcome,
)

NONCE_BYTES = 32
BEAT_S = 2.0
MISSED_BEATS = 3
"""So many missed PROGRESS messages in a row, and the server is lost."""


class HostFailed(Exception):
    """A host can't be used; the text says why, for a person."""


class Link:
    """A connection to one host, past its first exchange. Not for two threads at once."""

    def __init__(self, host: str, link: Transport, welcome: Welcome) -> None:
        self.host = host
        self.transport = link
        self.welcome = welcome

    # --- asking for a price ---------------------------------------------------------------------------

    def ask(self, task: Task) -> None:
        """Begin to ask what the task would cost; `take_answer` has the answer. Raises Lost."""
        self.transport.send(QuoteRequest(task))

    def wait(self, task: Task) -> None:
        """Begin to wait for a slot; `take_answer` has the answer, an offer with a lease. Raises Lost."""
        self.transport.send(Wait(task))

    def take_answer(self, readable: bool) -> Offer | Decline | None:
        """The answer, or None while there is none. `readable`: poll says that something came.

        Raises Lost or a protocol error.
        """
        message = self.transport.receive_ready(readable)
        while isinstance(message, Progress):  # it lives, and we are in the queue
            message = self.transport.receive_ready(readable=False)
        match message:
            case None | Decline():
                return message
            case Quote(offer):
                return offer
            case _:
                raise refused(message)

    # --- an action ------------------------------------------------------------------------------------

    def fresh(self) -> bool:
        """Whether the server has not closed it; an idle server says nothing, so anything readable is its end."""
        return not self.transport.wait_readable(0.0)

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

    def interrupt(self) -> None:
        """From another thread: end the connection, so that whoever reads from it finds it lost."""
        with contextlib.suppress(OSError):
            self.transport.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Leave; the server then frees what it holds for us."""
        self.transport.close()


def refused(message: Message) -> RemoteProtocolError | Lost:
    """What a server's ERROR, or a message out of place, means for us."""
    if isinstance(message, Error):
        return Lost(f"the server gave up: {message.text}")
    return RemoteProtocolError(f"{type(message).__name__} was not expected")


def connect(host: Host, environ: Mapping[str, str], connect_s: float) -> Link:
    """A new link to `host`, whose port is set. Raises HostFailed within about `connect_s` seconds for each address."""
    assert host.port is not None
    sock = _open(host, connect_s)
    try:
        transport.configure(sock)
        sock.setblocking(True)
        link = Transport(sock, Connection(Role.CLIENT))
        link.set_timeout(connect_s)
        welcome = _introduce(link, environ)
        link.set_timeout(BEAT_S * MISSED_BEATS + 1.0)
        return Link(host.address, link, welcome)
    except (Lost, ProtocolError, OSError) as error:
        sock.close()
        silent = isinstance(error, Lost) and "no sign of life" in str(error)
        text = (
            f"it accepted the connection and did not answer within {connect_s:g} s"
            if silent
            else (transport.explain(error))
        )
        raise HostFailed(text) from error


def _open(host: Host, connect_s: float) -> socket.socket:
    assert host.port is not None
    try:
        found = socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "no valid name"
        raise HostFailed(f"the name can't be resolved: {reason}") from error
    problem = "no address"
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(connect_s)
        try:
            sock.connect(address)
            return sock
        except TimeoutError:
            problem = f"no answer within {connect_s:g} s"
        except OSError as error:
            problem = error.strerror or str(error)
            if isinstance(error, ConnectionRefusedError):
                problem = "connection refused; is rakeserver running there?"
        sock.close()
    raise HostFailed(problem)


def _introduce(link: Transport, environ: Mapping[str, str]) -> Welcome:
    user = environ.get("USER") or environ.get("LOGNAME") or str(os.getuid())
    link.send(
        Hello(
            protocol=PROTOCOL_NAME,
            versions=PROTOCOL_VERSIONS,
            capabilities=(),
            nonce=os.urandom(NONCE_BYTES),
            client=f"{user}@{socket.gethostname()}"[:200].encode("utf-8", "replace").decode(),
            software=__version__,
        )
    )
    message = link.receive()
    if message is None:
        raise Lost("the server closed the connection")
    if isinstance(message, Error):
        raise Lost(message.text)
    assert isinstance(message, Welcome)
    if message.version not in PROTOCOL_VERSIONS or not 1 <= message.slots <= 65536:
        raise RemoteProtocolError(f"the server chose version {message.version} and has {message.slots} slots")
    return message


def wait_readable(links: list[Link], deadline: float) -> set[int]:
    """Descriptors with something to read, at the latest at `deadline` (monotonic seconds)."""
    poller = select.poll()
    for link in links:
        poller.register(link.transport.socket, select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000)}
