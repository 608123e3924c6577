"""One action on the host that won it: files there, the command, everything back."""

import os
import time
from collections.abc import Callable

from msgspec import Struct

from rakefarm.client.auction import Award
from rakefarm.client.inputs import Manifest
from rakefarm.client.link import Request
from rakefarm.client.outputs import Incoming
from rakefarm.process import Capture
from rakefarm.wire import RemoteProtocolError
from rakefarm.wire.messages import (
    OUTCOMES,
    Decline,
    Delivered,
    Execute,
    File,
    NeedFiles,
    Output,
    Progress,
    Result,
    Stderr,
    Stdout,
    Supplied,
    Variable,
)


class Declined(Exception):
    """The host took the offer back before the command ran: another may run it."""


class Order(Struct, frozen=True):
    """What to run, the same for every attempt."""

    request: Request
    command: bytes
    manifest: Manifest
    produces: tuple[bytes, ...] | None
    timeout_s: float | None
    environment: tuple[Variable, ...]
    label: str


PhaseListener = Callable[[str, float, int], None]
"""Told of a phase (sending, queued, running, receiving), CPU seconds and memory in bytes."""


def execute(
    order: Order, award: Award, incoming: Incoming, stdout: Capture, stderr: Capture, tell: PhaseListener
) -> Result:
    """Run `order` on the award's link; the outputs are in `incoming`, not installed, the result is unacknowledged.

    Raises Declined, Lost or a protocol error (all: not run), OSError (ours: an input, an output or a capture).
    """
    link, member = award.link, award.member
    produces = order.produces
    link.transport.send(
        Execute(
            lease=award.offer.lease,
            kind=order.request.kind,
            needs=order.request.needs,
            command=order.command,
            manifest=order.manifest.entries,
            declared=int(produces is not None),
            produces=produces or (),
            timeout_s=order.timeout_s or 0.0,
            environment=order.environment,
            label=order.label,
        )
    )
    if member.knows(entry.sha256 for entry in order.manifest.entries):
        tell("running", 0.0, 0)
    result: Result | None = None
    while True:
        match link.receive():
            case NeedFiles(indexes):
                tell("sending", 0.0, 0)
                _supply(order.manifest, indexes, award)
                tell("running", 0.0, 0)
            case Progress(phase, _, cpu_s, memory_bytes):
                tell("queued" if phase == "queued" else "running", cpu_s, memory_bytes)
            case Decline(reason, text):
                member.sent.clear()  # it may have lost what it had
                raise Declined(f"{reason}: {text}")
            case Result() as result:
                if result.outcome not in OUTCOMES:
                    raise RemoteProtocolError(f"a result of the unknown outcome {result.outcome[:40]!r}")
            case Stdout():
                link.transport.receive_body(stdout.write)
            case Stderr():
                link.transport.receive_body(stderr.write)
            case Output() as output:
                tell("receiving", 0.0, 0)
                _receive_output(order, output, incoming, award)
            case Delivered(offers):
                link.keep(offers, order.request)
                assert result is not None, "the state table puts RESULT first"
                member.sent.update(entry.sha256 for entry in order.manifest.entries)
                return result
            case message:
                raise RemoteProtocolError(f"{type(message).__name__} was not expected")


def _supply(manifest: Manifest, indexes: tuple[int, ...], award: Award) -> None:
    transport = award.link.transport
    started, before = time.monotonic(), transport.sent
    for index in indexes:
        if index >= len(manifest.entries):
            raise RemoteProtocolError(f"the server needs input {index}, there are {len(manifest.entries)}")
        descriptor = os.open(manifest.sources[index], os.O_RDONLY | os.O_CLOEXEC)
        try:
            transport.gather_file(File(index), descriptor, manifest.entries[index].size)
        finally:
            os.close(descriptor)
    transport.send(Supplied())
    award.member.note_sent(transport.sent - before, time.monotonic() - started)


def _receive_output(order: Order, output: Output, incoming: Incoming, award: Award) -> None:
    if order.produces is not None and output.path not in order.produces:
        raise RemoteProtocolError("an output that was not declared")
    incoming.receive(output, award.link.transport.receive_body)
    award.member.sent.add(output.sha256)
