"""Actions that run here: in the working directory, or staged where only staging makes them work."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rakefarm import process
from rakefarm.capture import Capture
from rakefarm.client.inputs import Hasher
from rakefarm.client.local import LocalResult, needs_staging, run_here, run_staged
from rakefarm.client.outputs import Incoming
from rakefarm.client.rakefile_model import Action

ENVIRON = {b"PATH": os.fsencode(os.environ["PATH"])}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a place for temporary ones beside it."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path / "project")
    yield tmp_path / "project"
    assert os.listdir(tmp_path / "tmp") == [], "a staging directory was left"


@pytest.fixture
def cancel() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_CLOEXEC)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def incoming() -> Iterator[Incoming]:
    incoming = Incoming()
    yield incoming
    incoming.close()


def action(
    command: str,
    *requires: str,
    produces: tuple[str, ...] | None = None,
    timeout_s: float | None = None,
) -> Action:
    return Action(command, False, 1, requires, produces, (), timeout_s)


def staged(what: Action, cancel: int, incoming: Incoming) -> LocalResult:
    return run_staged(what, Hasher().manifest(what.requires), ENVIRON, cancel, incoming)


def text_of(capture: Capture) -> bytes:
    return b"".join(capture.pieces())


# --- whether to stage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "requires", "expected"),
    [
        ("cc -c a.c", ("src/a.c",), True),
        ("cc -c a.c", ("./src/a.c",), True),
        ("cc -c 'a.c'", ("src/a.c",), True),
        ("cc -c src/a.c", ("src/a.c",), False),
        ("cc -c a.c", ("a.c",), False),
        ("cc -c a.c", ("./a.c",), False),
        ("cc -c here.c", ("src/here.c",), False),  # there is one here: it is meant
        ("echo a.cc", ("src/a.c",), False),
        ("echo it's a.c", ("src/a.c",), True),  # the shell will complain; we only look for words
        ("cat x.h", ("/usr/include/x.h",), False),
        ("true", (), False),
    ],
)
def test_only_a_bare_name_of_a_nested_file_needs_it(
    project: Path, command: str, requires: tuple[str, ...], expected: bool
) -> None:
    (project / "here.c").touch()
    assert needs_staging(action(command, *requires)) is expected


# --- in the working directory ---------------------------------------------------------------------------


def test_it_runs_here_and_its_bytes_are_kept_apart(project: Path, cancel: int) -> None:
    result = run_here(action(r"printf 'out\377'; printf err >&2; pwd > where; exit 3"), ENVIRON, cancel)
    assert result.completed.ending == process.Exited(3)
    assert text_of(result.completed.stdout) == b"out\xff"
    assert text_of(result.completed.stderr) == b"err"
    assert (project / "where").read_text() == f"{project}\n"
    result.completed.close()


def test_undecodable_bytes_of_a_command_survive(project: Path, cancel: int) -> None:
    result = run_here(action(os.fsdecode(b"printf x > caf\xe9")), ENVIRON, cancel)
    assert result.completed.ending == process.Exited(0)
    assert os.listdir(b".") == [b"caf\xe9"]


def test_a_declared_output_that_is_missing_is_told(project: Path, cancel: int) -> None:
    assert run_here(action("touch a.o", produces=("a.o",)), ENVIRON, cancel).problem == ""
    problem = run_here(action("true", produces=("a.o", "b.o")), ENVIRON, cancel).problem
    assert problem == "the declared output b.o was not made"
    assert run_here(action("exit 1", produces=("b.o",)), ENVIRON, cancel).problem == ""


def test_a_time_limit_and_a_signal_are_told(cancel: int) -> None:
    late = run_here(action("sleep 60", timeout_s=0.1), ENVIRON, cancel)
    assert late.completed.ending == process.TimedOut()
    killed = run_here(action("kill -9 $$"), ENVIRON, cancel)
    assert killed.completed.ending == process.Signalled(signal.SIGKILL)


def in_group(process: psutil.Process, group: int) -> bool:
    """Whether a process of that group is there and is more than a zombie that nobody has reaped yet."""
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ProcessLookupError):
        return False


def test_cancelling_ends_the_command_and_its_children(project: Path, cancel: int) -> None:
    timer = threading.Timer(0.2, os.eventfd_write, (cancel, 1))
    timer.start()
    started = time.monotonic()
    result = run_here(action("echo $$ > pid; sleep 60 & sleep 60"), ENVIRON, cancel)
    timer.join()
    assert result.completed.ending == process.Cancelled()
    assert time.monotonic() - started < 10
    group = int((project / "pid").read_text())
    while alive := [process for process in psutil.process_iter() if in_group(process, group)]:
        assert time.monotonic() - started < 10, alive


# --- staged ---------------------------------------------------------------------------------------------


def test_a_staged_action_sees_both_names_and_returns_what_it_made(
    project: Path, cancel: int, incoming: Incoming
) -> None:
    (project / "src").mkdir()
    (project / "src" / "a.c").write_text("text")
    (project / "stranger").write_text("not required")
    result = staged(action("cat a.c src/a.c; mkdir d; cp a.c d/b.o; chmod +x d/b.o; ls", "src/a.c"), cancel, incoming)
    assert result.completed.ending == process.Exited(0)
    assert text_of(result.completed.stdout) == b"texttexta.c\nd\nsrc\n"
    assert incoming.paths == ("d/b.o",)
    incoming.install()
    assert (project / "d" / "b.o").read_text() == "text"
    assert os.access("d/b.o", os.X_OK)


def test_a_changed_input_comes_back_once_and_a_touched_one_does_not(
    project: Path, cancel: int, incoming: Incoming
) -> None:
    (project / "src").mkdir()
    for name in ("a.c", "b.c"):
        (project / "src" / name).write_text("text")
    result = staged(action("echo more >> a.c; touch b.c", "src/a.c", "src/b.c"), cancel, incoming)
    assert result.completed.ending == process.Exited(0)
    assert incoming.paths == ("src/a.c",)


def test_mode_and_time_of_inputs_survive(project: Path, cancel: int, incoming: Incoming) -> None:
    tool = project / "src" / "tool.sh"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 7\n")
    tool.chmod(0o755)
    os.utime(tool, (10**9, 10**9))
    result = staged(action("stat -c '%a %Y' tool.sh; ./tool.sh", "src/tool.sh"), cancel, incoming)
    assert result.completed.ending == process.Exited(7)
    assert text_of(result.completed.stdout) == b"755 1000000000\n"


def test_a_failed_staged_action_returns_nothing(project: Path, cancel: int, incoming: Incoming) -> None:
    result = staged(action("touch a.o; exit 1"), cancel, incoming)
    assert result.completed.ending == process.Exited(1)
    assert incoming.paths == ()


def test_exactly_the_declared_outputs_come_back(project: Path, cancel: int, incoming: Incoming) -> None:
    assert not staged(action("touch a.o b.o", produces=("a.o",)), cancel, incoming).problem
    assert incoming.paths == ("a.o",)
    other = Incoming()
    problem = staged(action("true", produces=("a.o",)), cancel, other).problem
    assert problem == "the declared output 'a.o' was not made"
    assert other.paths == ()


def test_a_staged_action_that_makes_a_name_that_can_not_be_returned_has_failed(
    project: Path, cancel: int, incoming: Incoming
) -> None:
    result = staged(action("touch good \"$(printf 'x\\033y')\"; echo said"), cancel, incoming)
    assert "'x\\x1by'" in result.problem and "control byte" in result.problem
    assert text_of(result.completed.stdout) == b"said\n"
    assert incoming.paths == ()


def test_what_a_staged_action_locked_away_goes_too(project: Path, cancel: int, incoming: Incoming) -> None:
    result = staged(action("mkdir d; touch d/x; chmod 0 d; exit 1"), cancel, incoming)
    assert result.completed.ending == process.Exited(1)  # the fixture looks for what is left
