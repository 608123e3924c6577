"""What a compiler call and the helper say to each other over the Unix socket: one request, one answer.

    request   "rkc1", the size of the rest (u32), umask in octal, "1" when standard error is a terminal, directory,
              number of words, the words, the variables: each ended by a NUL byte
    answer    five u32: kind, status, sizes of standard output, of standard error, of the text; then these three

Numbers have the machine's own byte order: both ends are on it, and one of them may be a small C program. With the kind
LOCAL the text is the program to execute, the name to give it, and why, parted by NULs; the connection then stays open
for as long as it runs, since the helper bounds how many there are at a time.
"""

import os
import socket
import struct
from collections.abc import Mapping, Sequence

from msgspec import Struct

MAGIC = b"rkc1"
DONE, LOCAL = 0, 1
LARGEST_REQUEST = 16 << 20
_SIZE = struct.Struct("=I")
_ANSWER = struct.Struct("=5I")


class Malformed(Exception):
    """The other end does not speak this."""


class Request(Struct, frozen=True):
    """One compiler call. `words` begin with the compiler's name; `terminal`: its standard error is one."""

    umask: int
    terminal: bool
    directory: bytes
    words: tuple[bytes, ...]
    environ: Mapping[str, str]


class Answer(Struct, frozen=True):
    """How it ended, or, with `kind` LOCAL, what to execute here instead (in `text`)."""

    kind: int
    status: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    text: bytes = b""


def local(program: bytes, name: bytes, why: str) -> Answer:
    """Run `program` here, by this name."""
    return Answer(LOCAL, text=b"\0".join([program, name, why.encode("utf-8", "surrogateescape")]))


def encode_request(
    umask: int, terminal: bool, directory: bytes, words: Sequence[bytes], environ: Mapping[bytes, bytes]
) -> bytes:
    """A request's bytes."""
    fields = [b"%o" % umask, b"1" if terminal else b"0", directory, b"%d" % len(words), *words]
    fields += [name + b"=" + value for name, value in environ.items()]
    rest = b"\0".join(fields) + b"\0"
    return MAGIC + _SIZE.pack(len(rest)) + rest


def receive_request(sock: socket.socket) -> Request | None:
    """The request, or None when the peer only looked whether we are here. Raises Malformed or OSError."""
    head = _receive(sock, len(MAGIC) + _SIZE.size, at_start=True)
    if not head:
        return None
    (size,) = _SIZE.unpack(head[len(MAGIC) :])
    if not head.startswith(MAGIC) or size > LARGEST_REQUEST:
        raise Malformed("no request")
    rest = _receive(sock, size)
    if rest[-1:] != b"\0":
        raise Malformed("no request")
    fields = rest[:-1].split(b"\0")
    try:
        umask, terminal, directory, count = int(fields[0], 8), fields[1] == b"1", fields[2], int(fields[3])
    except (IndexError, ValueError) as error:
        raise Malformed("no request") from error
    words = fields[4 : 4 + count]
    if len(words) != count or count < 0 or not directory.startswith(b"/"):
        raise Malformed("no request")
    variables = (os.fsdecode(field).partition("=") for field in fields[4 + count :])
    return Request(umask & 0o777, terminal, directory, tuple(words), {name: value for name, _, value in variables})


def encode_answer(answer: Answer) -> bytes:
    """An answer's bytes."""
    head = _ANSWER.pack(answer.kind, answer.status, len(answer.stdout), len(answer.stderr), len(answer.text))
    return head + answer.stdout + answer.stderr + answer.text


def receive_answer(sock: socket.socket) -> Answer:
    """The answer. Raises Malformed or OSError."""
    kind, status, out, err, text = _ANSWER.unpack(_receive(sock, _ANSWER.size))
    rest = _receive(sock, out + err + text)
    return Answer(kind, status, rest[:out], rest[out : out + err], rest[out + err :])


def _receive(sock: socket.socket, size: int, at_start: bool = False) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            if at_start and not data:
                return b""
            raise Malformed("the other end is gone")
        data += piece
    return bytes(data)
