"""What a worker and its executors say to each other: a Job, then how it Ended, as records on a socket of their own.

A record is its size, 8 bytes big-endian, and msgpack: both ends are of one release and on one machine, so the
library's own form serves, which it reads and writes ten times as fast as we do the protocol's. Output too long for a
record travels as an open file beside it.
"""

import array
import contextlib
import os
import socket
import struct

import msgspec
from msgspec import Struct

_SIZE = struct.Struct(">Q")
_DESCRIPTOR_BYTES = array.array("i").itemsize
RECORD_BYTES = 8192
"""Most records are read at once; what is longer takes a second read."""
INLINE_BYTES = 256 << 10
"""Output up to this size travels inside the answer; more is handed over as an open file."""
LONGEST_ENDED_BYTES = 2 * INLINE_BYTES + (64 << 10)
LONGEST_JOB_BYTES = 64 << 20
READY, STOP = b"ready ", b"s"


class Job(Struct, frozen=True, array_like=True):
    """What an executor runs: the command, where, with which variables, for how long (seconds), and how much of its
    output is kept (bytes); 0: no limit."""

    command: bytes
    directory: bytes
    environment: dict[bytes, bytes]
    timeout_s: float
    stdout_most: int = 0
    stderr_most: int = 0


class Ended(Struct, frozen=True, array_like=True):
    """How it went. `outcome` is exited, signalled, timed_out, stopped (on our word), could_not_start (our fault) or
    unfit_command.

    `stdout` and `stderr` are complete when as long as their sizes say, else the rest is in the file handed over.
    """

    outcome: str
    status: int = 0
    detail: str = ""
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


class NotYet(Exception):
    """Nothing has come within the socket's own time limit (SO_RCVTIMEO)."""


class RecordError(Exception):
    """A record that can't be read: the process at the other end is not to be trusted any more."""


_encode = msgspec.msgpack.Encoder().encode
_decode_job = msgspec.msgpack.Decoder(Job).decode
_decode_ended = msgspec.msgpack.Decoder(Ended).decode


def send_job(sock: socket.socket, job: Job) -> None:
    """In a worker: have the executor at the other end run `job`. Raises OSError."""
    _send(sock, _encode(job), [])


def receive_job(sock: socket.socket) -> Job | None:
    """In an executor: the next job; None when the worker is gone. Raises OSError or RecordError."""
    record = _receive(sock, 0, LONGEST_JOB_BYTES)
    if record is None:
        return None
    try:
        return _decode_job(record[0])
    except msgspec.MsgspecError as error:
        raise RecordError(str(error)) from error


def send_ended(sock: socket.socket, ended: Ended, files: list[int]) -> None:
    """In an executor: the answer, with the open files of what is too long for it. Raises OSError."""
    _send(sock, _encode(ended), files)


def receive_ended(sock: socket.socket) -> tuple[Ended, list[int]] | None:
    """In a worker: the answer and the open files that came with it; None when the executor is gone.

    Raises NotYet, OSError or RecordError.
    """
    record = _receive(sock, 2, LONGEST_ENDED_BYTES)
    if record is None:
        return None
    try:
        return _decode_ended(record[0]), record[1]
    except msgspec.MsgspecError as error:
        _close(record[1])
        raise RecordError(str(error)) from error


def send_ready(sock: socket.socket, directory: bytes, home: int | None) -> None:
    """In an executor: confined, and ready. `directory` is where it finds its own; `home` is that, if it is a file
    system that nobody else sees. Raises OSError."""
    socket.send_fds(sock, [READY + directory], [] if home is None else [home])


def send_unready(sock: socket.socket, problem: str) -> None:
    """In an executor: it could not be confined, and will run nothing."""
    sock.send(problem.encode("utf-8", "replace")[:RECORD_BYTES])


def receive_ready(sock: socket.socket) -> tuple[bytes, int | None]:
    """In a worker: the executor's directory as it sees it, and a descriptor of it if it is a file system of its own.

    Raises OSError, or RecordError with the executor's reason.
    """
    data, handed, _, _ = socket.recv_fds(sock, RECORD_BYTES, 1)
    for descriptor in handed:
        os.set_inheritable(descriptor, False)
    if not data.startswith(READY):
        raise RecordError(data.decode("utf-8", "replace") or "it ended at once")
    return data[len(READY) :], handed[0] if handed else None


def send_stop(sock: socket.socket) -> None:
    """In a worker: end the command that runs now; its answer comes as ever. Raises OSError."""
    sock.send(STOP)


def take_stop(sock: socket.socket) -> bool:
    """In an executor, whose command was ended: whether that was the worker's word, rather than its end."""
    return sock.recv(len(STOP)) == STOP


def _send(sock: socket.socket, data: bytes, files: list[int]) -> None:
    record = _SIZE.pack(len(data)) + data
    sent = socket.send_fds(sock, [record], files) if files else sock.send(record)
    if sent < len(record):
        sock.sendall(memoryview(record)[sent:])


def _receive(sock: socket.socket, files: int, longest: int) -> tuple[bytes, list[int]] | None:
    handed: list[int] = []
    try:
        if files:
            data, ancillary, _, _ = sock.recvmsg(RECORD_BYTES, socket.CMSG_SPACE(files * _DESCRIPTOR_BYTES))
            handed = _descriptors(ancillary) if ancillary else handed
        else:
            data = sock.recv(RECORD_BYTES)
    except BlockingIOError as error:
        raise NotYet from error
    size = _SIZE.unpack_from(data)[0] if len(data) >= _SIZE.size else longest + 1 if data else 0
    if size > longest:
        _close(handed)
        raise RecordError(f"a record of {size} bytes, the limit is {longest}")
    missing = size + _SIZE.size - len(data)
    if not missing:
        return data[_SIZE.size :], handed
    parts = [data]
    while missing > 0:
        more = _receive_more(sock, min(missing, INLINE_BYTES)) if data else b""
        if not more:
            _close(handed)
            return None
        parts.append(more)
        missing -= len(more)
    return b"".join(parts)[_SIZE.size :], handed


def _receive_more(sock: socket.socket, count: int) -> bytes:
    """Some of the rest of a record, however long it takes."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return sock.recv(count)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The open files that came with a record, not to be inherited."""
    handed = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            handed.frombytes(data[: len(data) - len(data) % _DESCRIPTOR_BYTES])
    for descriptor in handed:
        os.set_inheritable(descriptor, False)
    return list(handed)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
