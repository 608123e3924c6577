"""A socket with a `Connection` on it: blocking sends and receives, the same for server and client.

Small messages are gathered and written once: two writes a message without TCP_NODELAY cost 44 ms, and each
write wakes the peer. Bodies of files go from disk to socket and back in pieces; nothing large is held.
"""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable

from rakefarm.wire import Body, Connection, ProtocolError
from rakefarm.wire.errors import ConnectionCut
from rakefarm.wire.messages import Message

RECEIVE_BYTES = 16 << 10
"""One read between bodies. Larger ones come fresh from the system, which costs more than all else in a small action."""
RECEIVE_BODY_BYTES = 256 << 10
GATHER_BYTES = 128 << 10
"""Written as soon as this much has been gathered."""
INLINE_BODY_BYTES = 64 << 10
"""Bodies up to this size are copied into the gathered bytes; larger ones are sent from the file by the kernel."""
USER_TIMEOUT_MS = 30_000
_TIMEVAL = struct.Struct("ll")


class Lost(Exception):
    """The peer is gone or silent; the text says which, for a person."""


def configure(sock: socket.socket) -> None:
    """Make a TCP socket fit for the protocol: no delay, and a dead peer noticed within half a minute."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


class Transport:
    """One end of a connection. `received` and `sent` count bytes; not for two threads at once."""

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self.socket = sock
        self.connection = connection
        self.sent = 0
        self.received = 0
        self._gathered = bytearray()
        self._poller: select.poll | None = None

    def set_timeout(self, seconds: float) -> None:
        """How long a read or write may wait before the peer counts as lost; 0 is for ever.

        The kernel keeps the time (SO_RCVTIMEO), so that a read stays one system call.
        """
        whole = int(seconds)
        value = _TIMEVAL.pack(whole, int((seconds - whole) * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

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
            self.socket.sendall(data)
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
        while True:
            event = self.connection.next_event()
            if event is not None:
                assert not isinstance(event, Body), "read the body before the next message"
                return event
            if self.connection.ended:
                return None
            self._read()

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
        return event

    def receive_body(self, sink: Callable[[bytes], object]) -> None:
        """The body of the message just received, piece by piece into `sink`. Raises as `receive`."""
        while self.connection.incoming_body:
            event = self.connection.next_event()
            if event is None:
                self._read()
            else:
                assert isinstance(event, Body)
                sink(event.data)

    def _read(self) -> None:
        try:
            body = self.connection.incoming_body > RECEIVE_BYTES
            data = self.socket.recv(RECEIVE_BODY_BYTES if body else RECEIVE_BYTES)
        except OSError as error:
            raise Lost(_why(error)) from error
        self.received += len(data)
        self.connection.receive_data(data)

    def close(self) -> None:
        """Close the socket; a reader in another thread sees the end."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def explain(error: Lost | ProtocolError | OSError) -> str:
    """One line for a person about how a connection was lost."""
    if isinstance(error, ConnectionCut):
        return "the connection was closed in mid-conversation"
    return str(error)


def _why(error: OSError) -> str:
    if isinstance(error, BlockingIOError | TimeoutError):
        return "no sign of life within the time allowed"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    return error.strerror or str(error)
