"""What isolation costs an action: processor time of the whole server for commands that do nothing, level by level.

python3 benchmarks/isolation.py

Servers of all levels run at the same time and are asked in turn, so that what else the machine does hits all alike; the
median of the rounds counts.
"""

import contextlib
import os
import socket
import statistics
import sys
import tempfile
import time

import psutil
from farm import ENVIRONMENT, Server, server

from rakefarm.levels import LEVELS
from rakefarm.server.sandbox import choose_root
from rakefarm.transport import Transport
from rakefarm.wire import Connection, Role
from rakefarm.wire.messages import (
    PROTOCOL_NAME,
    PROTOCOL_VERSIONS,
    Ack,
    Delivered,
    Execute,
    Hello,
    Task,
)

ROUNDS = 9
ACTIONS = 200
MOST_MS = 0.3
"""What a level may cost an action more than none."""


def introduce(address: str) -> Transport:
    """A connection, ready for actions."""
    host, _, port = address.rpartition(":")
    transport = Transport(socket.create_connection((host, int(port))), Connection(Role.CLIENT))
    transport.set_timeout(60.0)
    transport.send(Hello(PROTOCOL_NAME, PROTOCOL_VERSIONS, (), bytes(32), "benchmark", "0"))
    transport.receive()
    return transport


def processor_seconds(running: Server) -> float:
    """Of all the server's processes, and of all that they have waited for."""
    total = 0.0
    for process in running.processes():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def run_actions(transport: Transport, count: int) -> None:
    """So many commands that do nothing, one after another."""
    for _ in range(count):
        transport.send(Execute(0, 0, Task("other", (), 0, 0.0, 0), b"true", (), 1, (), 0.0, (), "nothing", 0))
        while not isinstance(transport.receive(), Delivered):
            pass
        transport.gather(Ack())  # travels with the next


def main() -> int:
    """Answers the exit status: 1 when a level costs more than it may."""
    cpu: dict[str, list[float]] = {level: [] for level in LEVELS}
    elapsed: dict[str, list[float]] = {level: [] for level in LEVELS}
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(dir=choose_root("", "")))
        os.chmod(place, 0o711)
        ENVIRONMENT["TMPDIR"] = place
        farms = {}
        for level in LEVELS:
            running = stack.enter_context(server("--isolation", level, "--workers", "1", "--slots", "1"))
            transport = introduce(running.address)
            stack.callback(transport.close)
            run_actions(transport, 20)
            farms[level] = running, transport
        for _ in range(ROUNDS):
            for level, (running, transport) in farms.items():
                before, began = processor_seconds(running), time.perf_counter()
                run_actions(transport, ACTIONS)
                elapsed[level].append((time.perf_counter() - began) / ACTIONS * 1000)
                cpu[level].append((processor_seconds(running) - before) / ACTIONS * 1000)
    print(f"{ACTIONS} commands that do nothing, {ROUNDS} rounds; ms an action, and more than none")
    good = True
    for level in LEVELS:
        more = statistics.median([here - none for here, none in zip(cpu[level], cpu["none"], strict=True)])
        good &= more <= MOST_MS
        print(
            f"{level:<11} processor {statistics.mean(cpu[level]):.3f} ({more:+.3f})"
            f"   elapsed, the quickest round {min(elapsed[level]):.3f}"
        )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
