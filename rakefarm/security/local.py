"""Unix sockets: a path of any length, and who is at the other end."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid: struct ucred of unix(7)


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """A name for a socket that is short enough, however long its path is: an address has room for 107 bytes."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def peer_user(sock: socket.socket) -> int:
    """The user id at the other end, as the kernel has it: of who connected, or of who listens. Raises OSError."""
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def is_trusted(user: int) -> bool:
    """Whether a process of that user may act as ours: it is our own, or root, who could anyway."""
    return user in (os.geteuid(), 0)
