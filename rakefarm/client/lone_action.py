"""One action over one link, outside of a build: for who tries a host."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from rakefarm.capture import Capture
from rakefarm.client.farm import Member
from rakefarm.client.inputs import Hasher
from rakefarm.client.link import Link
from rakefarm.client.outputs import Incoming
from rakefarm.client.remote import Declined, Order, execute
from rakefarm.hosts import Host
from rakefarm.wire.messages import Result, Task

PATIENCE_S = 5.0
"""How long it may wait for a slot of a busy host."""
PAUSE_S = 0.1
TRIAL_S = 30.0
"""How long its command may take."""
PASSING = ("full", "license_in_use")
"""Reasons of who declines for the moment."""
Read = TypeVar("Read")


def run_alone(
    host: Host,
    link: Link,
    command: str,
    files: tuple[str, ...],
    *,
    kind: str,
    label: str,
    produces: tuple[bytes, ...] | None,
    read: Callable[[Capture], Read],
) -> tuple[Result, tuple[str, ...], Read]:
    """Its result, the paths of what it made, which is dropped, and what `read` makes of its standard output.

    Raises Declined when the host takes it not at all, or has no slot for PATIENCE_S; Lost, a protocol error or OSError.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        stdout, stderr, incoming = Capture(), Capture(), Incoming()
        try:
            manifest = Hasher().manifest(files)
            order = Order(
                task=Task(kind, (), manifest.total_bytes, 0.0, 0),
                command=os.fsencode(command),
                manifest=manifest,
                produces=produces,
                timeout_s=TRIAL_S,
                environment=(),
                label=label,
                start_now=True,
            )
            done = execute(order, Member(host, host.address), link, incoming, stdout, stderr, _tell_nobody)
            link.acknowledge()
            link.flush()
            return done.result, incoming.paths, read(stdout)
        except Declined as error:
            if error.reason not in PASSING or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_S)
        finally:
            for each in (stdout, stderr, incoming):
                each.close()


def _tell_nobody(phase: str, cpu_s: float, memory_bytes: int) -> None:
    """The phases of a trial are nobody's business."""
