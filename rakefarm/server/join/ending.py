"""What an engine is told of a command that has ended: a result, and notes of ours after what it wrote."""

import os
from collections.abc import Sequence

from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.api import status_pb2
from rakefarm.engine.blobs import Missing
from rakefarm.engine.content import content_of
from rakefarm.engine.quiet_grpc import grpc
from rakefarm.server.job import Ended
from rakefarm.server.join.outputs import Collected

INLINE_BYTES = 16 << 10
"""Output that travels in the result itself."""
SIGNALLED = 128
"""A shell's exit status for a signal is this and its number; the interface has no other word for it."""
NOT_FOUND = 127
"""A shell's for a program that can't be started."""
STOPPED = SIGNALLED + 9
TEXT_CHARACTERS = 500
READ_BYTES = 1 << 20


class Unable(Exception):
    """This machine, or this moment, is at fault; another may run it."""


def unavailable(host: str, text: str) -> status_pb2.Status:
    """The one status that has an engine give the action to another worker."""
    return _status(grpc.StatusCode.UNAVAILABLE, f"{host}: {text}")


def invalid(text: str) -> status_pb2.Status:
    """Of what no worker could run."""
    return _status(grpc.StatusCode.INVALID_ARGUMENT, text)


def refused(text: str) -> status_pb2.Status:
    """Of what this server's owner does not allow."""
    return _status(grpc.StatusCode.FAILED_PRECONDITION, text)


def lacking(error: Missing) -> status_pb2.Status:
    """The interface's way to say which content whoever asked has to send again."""
    status = _status(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    failure = status_pb2.PreconditionFailure()
    failure.violations.add(type="MISSING", subject=f"blobs/{error.content.name}")
    status.details.add().Pack(failure)
    return status


def _status(code: grpc.StatusCode, text: str) -> status_pb2.Status:
    return status_pb2.Status(code=code.value[0], message=text[:TEXT_CHARACTERS])


def judge(ended: Ended, exceeded: str, notes: list[str], result: api.ActionResult) -> status_pb2.Status:
    """Put into `result` how the command ended, and into `notes` what people should know; answers the status that goes
    with it. Notes that are there already say why its outputs can't be had. Raises Unable."""
    status = status_pb2.Status()
    match ended.outcome:
        case "exited":
            result.exit_code = ended.status or (1 if notes else 0)
        case "signalled":
            result.exit_code = SIGNALLED + ended.status
        case "timed_out" if not exceeded:
            status = _status(grpc.StatusCode.DEADLINE_EXCEEDED, "its time limit was up")
            result.exit_code = STOPPED
        case "timed_out" | "stopped":
            result.exit_code = STOPPED
        case "unfit_command":
            result.exit_code = NOT_FOUND
            notes.append(f"the command could not be started: {ended.detail}")
        case _:
            raise Unable(f"the command could not be started: {ended.detail}")
    if exceeded:
        notes.append(exceeded)
        result.exit_code = result.exit_code or STOPPED
    return status


def add_streams(collected: Collected, ended: Ended, files: Sequence[int], notes: Sequence[str]) -> None:
    """What the command wrote, of which the long parts are in `files`, and the notes behind it."""
    handed = iter(files)
    for name, size, data in (
        ("stdout", ended.stdout_bytes, ended.stdout),
        ("stderr", ended.stderr_bytes, ended.stderr),
    ):
        written = data if len(data) >= size else _read_all(next(handed))
        if name == "stderr":
            written += b"".join([f"[rakefarm: {note}]\n".encode() for note in notes])
        if len(written) <= INLINE_BYTES:
            setattr(collected.result, f"{name}_raw", written)
        else:
            content = content_of(written)
            collected.sources[content] = written
            getattr(collected.result, f"{name}_digest").CopyFrom(content.digest)


def _read_all(descriptor: int) -> bytes:
    pieces = []
    position = 0
    while data := os.pread(descriptor, READ_BYTES, position):
        pieces.append(data)
        position += len(data)
    return b"".join(pieces)
