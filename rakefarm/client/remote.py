"""One action on the host that won it: files there, the command, everything back."""

import os
import time
from collections.abc import Callable

from msgspec import Struct

from rakefarm.capture import Capture
from rakefarm.client.farm import Member
from rakefarm.client.inputs import Manifest
from rakefarm.client.link import Link
from rakefarm.client.outputs import Incoming
from rakefarm.market.curve import Curve
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
    Task,
    Variable,
)


class Declined(Exception):
    """The host took the award back before the command ran: another may run it. `curve` is how it stands, if it said."""

    def __init__(self, reason: str, text: str, curve: Curve | None) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.curve = curve


class Executed(Struct, frozen=True):
    """A command's end, the server's fresh curve, and the bytes of inputs that it had already."""

    result: Result
    curve: Curve | None
    bytes_saved: int


class Order(Struct, frozen=True):
    """What to run, the same for every attempt."""

    task: Task
    command: bytes
    manifest: Manifest
    produces: tuple[bytes, ...] | None
    timeout_s: float | None
    environment: tuple[Variable, ...]
    label: str
    lease: int = 0
    start_now: bool = False
    repeatable: bool = False


def request_of(order: Order) -> Execute:
    """The order as a server is told it."""
    produces = order.produces
    return Execute(
        lease=order.lease,
        start=int(order.start_now),
        task=order.task,
        command=order.command,
        manifest=order.manifest.entries,
        declared=int(produces is not None),
        produces=produces or (),
        timeout_s=order.timeout_s or 0.0,
        environment=order.environment,
        label=order.label,
        repeatable=int(order.repeatable),
    )


PhaseListener = Callable[[str, float, int], None]
"""Told of a phase (sending, queued, running, receiving), CPU seconds and memory in bytes."""


def execute(
    order: Order,
    member: Member,
    link: Link,
    incoming: Incoming,
    stdout: Capture,
    stderr: Capture,
    tell: PhaseListener,
) -> Executed:
    """Run `order` over the link; the outputs are in `incoming`, not installed, the result is unacknowledged.

    Raises Declined, Lost or a protocol error (all: not run), OSError (ours: an input, an output or a capture).
    """
    link.execute(request_of(order))
    # As far as we know: a host that lacks inputs, which only it knows, says so a round trip later.
    tell("running", 0.0, 0)
    result: Result | None = None
    bytes_saved = order.manifest.total_bytes
    while True:
        match link.receive():
            case NeedFiles(indexes):
                tell("sending", 0.0, 0)
                bytes_saved -= _supply(order.manifest, indexes, member, link)
                tell("running", 0.0, 0)
            case Progress(phase, _, cpu_s, memory_bytes):
                link.count_beat()
                tell("queued" if phase == "queued" else "running", cpu_s, memory_bytes)
            case Decline(reason, text, curves):
                if reason not in ("full", "license_in_use"):
                    member.names.clear()  # it may have lost what it had
                raise Declined(reason, text, curves[0] if curves else None)
            case Result() as result:
                if result.outcome not in OUTCOMES:
                    raise RemoteProtocolError(f"a result of the unknown outcome {result.outcome[:40]!r}")
                if result.kept and not (order.repeatable and result.outcome == "exited" and not result.status):
                    raise RemoteProtocolError("the result of an earlier run, which may not be one")
            case Stdout():
                link.count_body()
                link.transport.receive_body(stdout.write)
            case Stderr():
                link.count_body()
                link.transport.receive_body(stderr.write)
            case Output() as output:
                link.count_body()
                tell("receiving", 0.0, 0)
                _receive_output(order, output, incoming, link)
            case Delivered(curves):
                assert result is not None, "the state table puts RESULT first"
                return Executed(result, curves[0] if curves else None, bytes_saved)
            case message:
                raise RemoteProtocolError(f"{type(message).__name__} was not expected")


def _supply(manifest: Manifest, indexes: tuple[int, ...], member: Member, link: Link) -> int:
    """Send these inputs; answers their size in bytes."""
    transport = link.transport
    started, before = time.monotonic(), transport.sent
    last = -1
    for index in indexes:
        if not last < index < len(manifest.entries):
            raise RemoteProtocolError(f"the server needs input {index} after {last}, of {len(manifest.entries)}")
        last = index
        descriptor = os.open(manifest.sources[index], os.O_RDONLY | os.O_CLOEXEC)
        try:
            transport.gather_file(File(index), descriptor, manifest.entries[index].size)
        finally:
            os.close(descriptor)
    transport.send(Supplied())
    member.note_sent(transport.sent - before, time.monotonic() - started)
    return sum([manifest.entries[index].size for index in indexes])


def _receive_output(order: Order, output: Output, incoming: Incoming, link: Link) -> None:
    if order.produces is not None and output.path not in order.produces:
        raise RemoteProtocolError("an output that was not declared")
    incoming.receive(output, link.transport.receive_body)
