"""Passing an open socket from the listener to a worker, over a Unix SEQPACKET pair.

Messages of the listener: CONNECTION (with the socket's descriptor, and its ticket in two bytes: see `door`), DRAIN. Of
the worker: READY, once. The end of the pair means that the other process is gone. After a hand-over the socket is open
in exactly one process; only one whose client must still prove something stays open in the listener, too.
"""

import socket
import struct

CONNECTION, DRAIN, READY = b"c", b"d", b"r"
_TICKET = struct.Struct(">H")


def make_pair() -> tuple[socket.socket, socket.socket]:
    """The listener's end (never blocking) and the worker's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def hand_over(channel: socket.socket, connection: socket.socket, ticket: int) -> bool:
    """In the listener: give `connection` away; False when the worker's queue is full or the worker is gone."""
    try:
        socket.send_fds(channel, [CONNECTION + _TICKET.pack(ticket)], [connection.fileno()])
    except OSError:
        return False
    return True


def receive(channel: socket.socket) -> tuple[bytes, socket.socket | None, int]:
    """In a worker: the next message, b"" when the listener is gone; and the socket that came with it, and its ticket.

    A CONNECTION without a socket is one that this process has no descriptor left for.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, 16, 1)
    except ConnectionResetError:
        return b"", None, 0
    kind, ticket = data[:1], _TICKET.unpack(data[1:])[0] if data[:1] == CONNECTION else 0
    if not descriptors:
        return kind, None, ticket
    connection = socket.socket(fileno=descriptors[0])
    connection.set_inheritable(False)
    connection.setblocking(True)
    return kind, connection, ticket
