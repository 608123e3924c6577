"""What becomes of a build whose terminal is closed, whose reader leaves, whose disk is full: a quiet end, and the status."""

import fcntl
import os
import pty
import subprocess
import termios
import time
from pathlib import Path

import pytest
from farm_vocabulary import CLIENT, Built, Project
from server_vocabulary import Server, wait_until

Farm = tuple[Server, ...]


@pytest.mark.parametrize("signalled", [True, False])
@pytest.mark.parametrize("progress", ["live", "plain"])
def test_a_terminal_that_is_closed_ends_the_build_quietly(project: Project, signalled: bool, progress: str) -> None:
    mark = project.scratch / "mark"
    project.rakefile("a:", f"touch {mark}; sleep 1; echo gone; sleep 0.3", "sleep 2; echo gone")
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        if signalled:  # as its controlling terminal, whose end is told by SIGHUP; else only writing fails
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*CLIENT, "--progress", progress],
        cwd=project.path,
        env=project.environment({"TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    wait_until(mark.exists, "the command running")
    started = time.monotonic()
    os.close(ours)
    assert process.wait(20) == 129
    assert time.monotonic() - started < 5


def shell(project: Project, line: str, *options: str) -> Built:
    """The client with its streams as this line of the shell has them; the line's own end is the client's status."""
    ended = subprocess.run(
        ["bash", "-c", f'client() {{ "$@"; }}; set -o pipefail; {line}', "bash", *CLIENT, *options],
        cwd=project.path,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    return Built(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.parametrize("options", [("-n",), ("--help",), ("--version",), ("--progress", "plain"), ("--json",)])
def test_a_reader_that_has_left(project: Project, options: tuple[str, ...]) -> None:
    project.rakefile("a:", "echo text", "echo text")
    built = shell(project, '{ sleep 0.1; client "$@"; } | true', *options)
    assert (built.status, built.stderr) == (141, built.stderr if options[0] == "--progress" else b"")
    assert b"Traceback" not in built.stderr and b"fault" not in built.stderr


@pytest.mark.parametrize("options", [("-n",), ("--help",), ("--progress", "plain"), ("--json",)])
def test_a_full_disk_for_standard_output(project: Project, options: tuple[str, ...]) -> None:
    project.rakefile("a:", "echo text")
    built = shell(project, 'client "$@" > /dev/full', *options)
    assert built.status == 1
    (line,) = [line for line in built.stderr.splitlines() if b"error" in line]
    assert line.endswith(b"error: cannot write standard output: No space left on device [RF005]")


@pytest.mark.parametrize("options", [("-n",), ("--help",), ("--progress", "plain"), ("--json",)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_as_good_as_nothing(
    project: Project, farm: Farm, tmp_path: Path, options: tuple[str, ...], closed: str
) -> None:
    project.rakefile("a:", "echo text; echo text >&2; : > made", "remote-echo text; echo more >&2")
    built = shell(project, f'client "$@" {closed}', *options, "--hosts", farm[0].address)
    assert built.status == 0, built.stderr
    assert b"Traceback" not in built.stderr and b"fault" not in built.stderr


def test_both_streams_full_or_closed(project: Project) -> None:
    project.rakefile("a:", "false")
    assert shell(project, 'client "$@" > /dev/full 2>&1', "-n").status == 1
    assert shell(project, 'client "$@" > /dev/full 2>&1', "-f", "none").status == 2
    assert shell(project, 'client "$@" 2>&-').status == 1
