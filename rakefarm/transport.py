"""A socket with a `Connection` on it: blocking sends and receives, the same for server and client.

Small messages are gathered and written once: two writes a message without TCP_NODELAY cost 44 ms, and each
write wakes the peer. Bodies of files go from disk to socket and back in pieces; nothing large is held.
"""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm.wire import Body, Connection, ProtocolError
from rakefarm.wire.errors import ConnectionCut
from rakefarm.wire.messages import Message

if TYPE_CHECKING:
    from rakefarm.security.tls import TlsStream

RECEIVE_BYTES = 16 << 10
"""One read between bodies. Larger ones come fresh from the system, which costs more than all else in a small action."""
RECEIVE_BODY_BYTES = 256 << 10
GATHER_BYTES = 128 << 10
"""Written as soon as this much has been gathered."""
INLINE_BODY_BYTES = 64 << 10
"""Bodies up to this size are copied into the gathered bytes; larger ones are sent from the file by the kernel."""
DISCARD_BYTES = 64 << 10
UNACKNOWLEDGED_S = 30.0
_TIMEVAL = struct.Struct("ll")


class Pace(Struct, frozen=True):
    """How slowly a peer may send what it has begun to: so many bytes a second on average, after a grace (seconds)."""

    bytes_per_s: float
    grace_s: float

    def allowed_s(self, received: int) -> float:
        """How long so many bytes may have taken."""
        return self.grace_s + received / self.bytes_per_s

    @property
    def complaint(self) -> str:
        """What is wrong with a peer that takes longer."""
        return f"it sends fewer than {self.bytes_per_s:g} bytes a second"


class Lost(Exception):
    """The peer is gone or silent; the text says which, for a person."""


def configure(sock: socket.socket, unacknowledged_s: float = UNACKNOWLEDGED_S) -> None:
    """Make a TCP socket fit for the protocol: no delay, and a dead peer noticed within half a minute, or that time."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        limit_unacknowledged(sock, unacknowledged_s)


def limit_unacknowledged(sock: socket.socket, seconds: float) -> None:
    """From now on give up a TCP connection whose other end's kernel does not acknowledge what we sent for so long:
    packets are lost, or nobody reads there and its buffers are full."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


class Transport:
    """One end of a connection. `received` and `sent` count bytes; not for two threads at once."""

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self.socket = sock
        self.connection = connection
        self.sent = 0
        self.received = 0
        self.pace: Pace | None = None
        """How fast a message must come once it has begun; None: at any rate."""
        self._tls: TlsStream | None = None
        self._begun: tuple[float, int] | None = None
        self._due: float | None = None
        """When the peer's pace has the next read end, where that is before the time limit of a read."""
        self._timeout_s = 0.0
        self._deadline: float | None = None
        self._gathered = bytearray()
        self._poller: select.poll | None = None

    def encrypt(self, tls: "TlsStream") -> None:
        """From now on everything goes through `tls`, whose handshake is over."""
        self._tls = tls

    def set_timeout(self, seconds: float) -> None:
        """How long a read or write may wait before the peer counts as lost; 0 is for ever.

        The kernel keeps the time (SO_RCVTIMEO), so that a read stays one system call.
        """
        self._timeout_s = seconds
        self._deadline = None
        value = _timeval(seconds)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def set_deadline(self, seconds: float) -> None:
        """From now on all reads together may take so long, until `set_timeout` says otherwise: a peer that sends a byte
        now and then gets no more time than one that sends none."""
        self.set_timeout(seconds)
        self._deadline = time.monotonic() + seconds

    def keep_deadline(self) -> None:
        """Have the next read end when the deadline is there. Raises Lost when it was."""
        if self._deadline is not None:
            self._wait_at_most(self._deadline - time.monotonic(), "no sign of life within the time allowed")

    def _wait_at_most(self, seconds: float, otherwise: str) -> None:
        if seconds < 1e-3:
            raise Lost(otherwise)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    def gather(self, message: Message, body: bytes | None = None) -> None:
        """Add a message (with a small body, if it has one) to what the next `flush` writes."""
        self._gathered += self.connection.send(message, None if body is None else len(body))
        if body:
            self._gathered += body
            self.connection.body_sent(len(body))
        if len(self._gathered) >= GATHER_BYTES:
            self.flush()

    def send(self, message: Message) -> None:
        """Write a message, and what was gathered before it. Raises Lost."""
        self._gathered += self.connection.send(message)
        self.flush()

    def flush(self) -> None:
        """Write what was gathered. Raises Lost."""
        if self._gathered:
            self._write(self._gathered)
            self._gathered.clear()

    def _write(self, data: bytes | bytearray) -> None:
        try:
            (self._tls or self.socket).sendall(data)
        except OSError as error:
            raise Lost(_why(error)) from error
        self.sent += len(data)

    def gather_pieces(self, message: Message, size: int, pieces: Iterable[bytes]) -> None:
        """A message whose body of `size` bytes comes in pieces."""
        self._gathered += self.connection.send(message, size)
        for piece in pieces:
            self._gathered += piece
            self.connection.body_sent(len(piece))
            if len(self._gathered) >= GATHER_BYTES:
                self.flush()

    def gather_file(self, message: Message, descriptor: int, size: int) -> None:
        """A message whose body is the first `size` bytes of an open file.

        Raises Lost; and OSError when the file turns out shorter, which leaves the connection unusable.
        """
        if size <= INLINE_BODY_BYTES:
            data = os.pread(descriptor, size, 0)
            if len(data) != size:
                raise OSError("the file became shorter while it was sent")
            self.gather(message, data)
            return
        self._gathered += self.connection.send(message, size)
        self.flush()
        position = 0
        while position < size:
            if self._tls is not None:
                data = os.pread(descriptor, min(size - position, RECEIVE_BODY_BYTES), position)
                if not data:
                    raise OSError("the file became shorter while it was sent")
                self._write(data)
                position += len(data)
                self.connection.body_sent(len(data))
                continue
            try:
                count = os.sendfile(self.socket.fileno(), descriptor, position, min(size - position, 1 << 20))
            except OSError as error:
                raise Lost(_why(error)) from error
            if not count:
                raise OSError("the file became shorter while it was sent")
            position += count
            self.sent += count
            self.connection.body_sent(count)

    def receive(self) -> Message | None:
        """The next message; None when the peer ended where it may. Raises Lost or a RemoteProtocolError."""
        event = self.connection.next_event()
        if event is None and not self.connection.ended:
            self._read()
            event = self.connection.next_event()
            if event is None and not self.connection.ended:
                event = self._receive_rest()
        assert not isinstance(event, Body), "read the body before the next message"
        return event

    def _receive_rest(self) -> Message | Body | None:
        """What has begun to come, at the pace that is demanded."""
        began, before = time.monotonic(), self.received
        event = None
        while event is None and not self.connection.ended:
            self._keep_pace(began, before)
            self._read()
            event = self.connection.next_event()
        self._end_pace()
        return event

    def _keep_pace(self, began: float, before: int) -> None:
        if self.pace is None or self._deadline is not None:
            return
        due = began + self.pace.allowed_s(self.received - before)
        left_s = due - time.monotonic()
        if not self._timeout_s or left_s < self._timeout_s:
            self._wait_at_most(left_s, self.pace.complaint)
            self._due = due
        else:
            self._end_pace()

    def _end_pace(self) -> None:
        """A read may take as long as ever."""
        if self._due is not None:
            self.set_timeout(self._timeout_s)
            self._due = None

    def wait_readable(self, seconds: float) -> bool:
        """Whether something is there to receive within this time."""
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self.socket, select.POLLIN)
        return bool(self._poller.poll(seconds * 1000))

    def receive_ready(self, readable: bool) -> Message | None:
        """The next message without waiting: None when it isn't all there. With `readable`, one read that won't block.

        Raises Lost, also when the peer has closed its end, or a RemoteProtocolError.
        """
        event = self.connection.next_event()
        if event is None and readable:
            self._read()
            event = self.connection.next_event()
        if event is None and self.connection.ended:
            raise Lost("the peer closed the connection")
        assert not isinstance(event, Body), "read the body before the next message"
        if readable or event is not None:
            self._check_pace(begun=event is None)
        return event

    def _check_pace(self, begun: bool) -> None:
        """Of a message that comes bit by bit, and is not waited for."""
        now = time.monotonic()
        if self.pace is None or not begun:
            self._begun = None
        elif self._begun is None:
            self._begun = now, self.received
        elif now > self._begun[0] + self.pace.allowed_s(self.received - self._begun[1]):
            raise Lost(self.pace.complaint)

    def receive_body(self, sink: Callable[[bytes], object]) -> None:
        """The body of the message just received, piece by piece into `sink`. Raises as `receive`."""
        began, before = time.monotonic(), self.received
        while self.connection.incoming_body:
            event = self.connection.next_event()
            if event is None:
                self._keep_pace(began, before)
                self._read()
            else:
                assert isinstance(event, Body)
                sink(event.data)
        self._end_pace()

    def _read(self) -> None:
        if self._deadline is not None:
            self.keep_deadline()
        try:
            body = self.connection.incoming_body > RECEIVE_BYTES
            data = (self._tls or self.socket).recv(RECEIVE_BODY_BYTES if body else RECEIVE_BYTES)
        except OSError as error:
            late = self.pace is not None and self._due is not None and time.monotonic() >= self._due - 1e-3
            raise Lost(self.pace.complaint if late and self.pace else _why(error)) from error
        if data is not None:  # TLS had something to say to itself, or not yet a whole record
            self.received += len(data)
            self.connection.receive_data(data)

    def say_farewell(self, error: Message, patience_s: float) -> None:
        """Tell the peer why we give up, whoever's turn it is, and wait a little until it has read that."""
        sock = self.socket
        try:
            sock.settimeout(patience_s)
            (self._tls or sock).sendall(self.connection.farewell(error))
            sock.shutdown(socket.SHUT_WR)
            # To close with something unread is a reset, which may overtake what we said.
            until = time.monotonic() + patience_s
            while sock.recv(DISCARD_BYTES) and time.monotonic() < until:
                pass
        except OSError:
            pass

    def end(self, read_on: bool) -> None:
        """End the stream that we write, and the one that we read unless it is to be read on. From any thread, also
        while another reads or writes: the socket stays open, so that its number is nobody else's meanwhile."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR if read_on else socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; a reader in another thread sees the end."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return _TIMEVAL.pack(whole, int((seconds - whole) * 1e6))


def explain(error: Lost | ProtocolError | OSError) -> str:
    """One line for a client's user about how a connection was lost. A server that is killed closes, cuts or resets its
    connections, as it happens: that is one thing to a person, and said in one way."""
    if isinstance(error, ConnectionCut) or isinstance(error.__cause__, ConnectionResetError | BrokenPipeError):
        return "the server closed the connection"
    return str(error)


def _why(error: OSError) -> str:
    if isinstance(error, BlockingIOError | TimeoutError):
        return "no sign of life within the time allowed"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    return error.strerror or str(error)
