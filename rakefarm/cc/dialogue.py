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
from functools import lru_cache

from msgspec import Struct

MAGIC = b"rkc1"
DONE, LOCAL = 0, 1
LARGEST_REQUEST = 16 << 20
_SIZE = struct.Struct("=I")
_HEAD_BYTES = len(MAGIC) + _SIZE.size
RECEIVE_BYTES = 16 << 10
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
    data = bytearray(sock.recv(RECEIVE_BYTES))  # mostly all of it
    if not data:
        return None
    _receive_up_to(sock, data, _HEAD_BYTES)
    (size,) = _SIZE.unpack_from(data, len(MAGIC))
    if not data.startswith(MAGIC) or size > LARGEST_REQUEST:
        raise Malformed("no request")
    _receive_up_to(sock, data, _HEAD_BYTES + size)
    if len(data) != _HEAD_BYTES + size or data[-1:] != b"\0":
        raise Malformed("no request")
    try:
        umasked, terminal, directory, number, *rest = bytes(data[_HEAD_BYTES:-1]).split(b"\0", 4)
        umask, count = int(umasked, 8), max(0, int(number))
    except ValueError as error:
        raise Malformed("no request") from error
    fields = rest[0].split(b"\0", count) if rest else []
    words, variables = fields[:count], fields[count:]
    if len(words) != count or not directory.startswith(b"/"):
        raise Malformed("no request")
    environ = _environment(variables[0] if variables else b"")
    return Request(umask & 0o777, terminal == b"1", directory, tuple(words), environ)


@lru_cache(maxsize=64)
def _environment(text: bytes) -> Mapping[str, str]:
    """The variables, not to be changed: a build's calls have the same, or nearly."""
    variables = (os.fsdecode(field).partition("=") for field in text.split(b"\0") if field)
    return {name: value for name, _, value in variables}


def encode_answer(answer: Answer) -> bytes:
    """An answer's bytes."""
    head = _ANSWER.pack(answer.kind, answer.status, len(answer.stdout), len(answer.stderr), len(answer.text))
    return head + answer.stdout + answer.stderr + answer.text


def receive_answer(sock: socket.socket) -> Answer:
    """The answer. Raises Malformed or OSError."""
    kind, status, out, err, text = _ANSWER.unpack(_receive(sock, _ANSWER.size))
    rest = _receive(sock, out + err + text)
    return Answer(kind, status, rest[:out], rest[out : out + err], rest[out + err :])


def _receive_up_to(sock: socket.socket, data: bytearray, size: int) -> None:
    if len(data) < size:
        data += _receive(sock, size - len(data))


def _receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise Malformed("the other end is gone")
        data += piece
    return bytes(data)
