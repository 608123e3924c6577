"""`rakefarm top`: who uses which host, once without a terminal, live on one, which is left as it was."""

import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable

from farm_vocabulary import Project
from server_vocabulary import Client, Gate, Server, execute

from rakefarm.client.top_rows import ORDERS, host_sheet
from rakefarm.client.watch import Sight

COMMAND = [sys.executable, "-m", "rakefarm", "top"]


def top(project: Project, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *words], cwd=project.path, env=project.environment(), capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_it_tells_who_runs_what(
    project: Project, server: Server, connect: Callable[[Server], Client], gate: Gate
) -> None:
    connect(server).send(execute(gate.command, label="link\x1b[31m line 4"))
    gate.wait_reached()
    status, text = top(project, server.address)
    assert status == 0 and "\x1b" not in text
    assert "link\\x1b[31m line 4" in text and "1 running" in text and "1 of 2 slots free" in text
    (told,) = json.loads(top(project, "--json", server.address)[1])
    assert told["status"]["occupants"][0]["client"] == "test" and told["problem"] is None


def test_a_host_that_is_gone_is_told_of(project: Project, server: Server) -> None:
    status, text = top(project, server.address, "127.0.0.1:1")
    assert status == 3
    assert "127.0.0.1:1: connection refused" in text and "1 of 2 hosts" in text


def test_hosts_that_tell_nothing_can_be_sorted() -> None:
    for order in ORDERS:
        assert [row[0] for row in host_sheet([Sight("b"), Sight("a")], order).rows] == ["a", "b"]


def test_on_a_terminal_it_is_live_until_q_and_leaves_it_as_it_was(project: Project, server: Server) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    environment = {**project.environment(), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        [*COMMAND, server.address], cwd=project.path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    shown = read_until(ours, b"0 running")
    os.write(ours, b"p")
    shown += read_until(ours, b"0 running")
    os.write(ours, b"q")
    shown += read_until(ours, b"\x1b[?1049l")
    assert process.wait(20) == 0
    assert b"\x1b[?1049h" in shown and termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def read_until(terminal: int, wanted: bytes) -> bytes:
    shown, deadline = b"", time.monotonic() + 20
    while wanted not in shown:
        assert select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], shown
        shown += os.read(terminal, 65536)
    return shown
