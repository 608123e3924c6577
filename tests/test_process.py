"""Running one command: how it ended, all it wrote, and nothing of it left."""

import contextlib
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_vocabulary import is_alive, processes_in, wait_until

from rakefarm import process
from rakefarm.capture import SPILL_BYTES, Capture, spill_to_disk, spill_to_memory
from rakefarm.process import (
    Cancelled,
    Completed,
    CouldNotStart,
    Exited,
    Signalled,
    TimedOut,
)

PATH = b"/usr/local/bin:/usr/bin:/bin"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No process with the test's mark, and no open file."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    wait_until(lambda: not processes_in(tmp_path), "every process gone")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    """`run(command, …)` with the test's mark in the environment; its captures are closed in the end."""
    done: list[Completed] = []

    def run_marked(command: bytes, **options: Any) -> Completed:
        environment = {b"PATH": PATH, b"MARK": os.fsencode(tmp_path), **options.pop("environment", {})}
        done.append(process.run(command, environment, **options))
        return done[-1]

    yield run_marked
    for completed in done:
        completed.close()


def text(capture: Capture) -> bytes:
    return b"".join(capture.pieces())


# --- how it ended ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        (b"true", Exited(0)),
        (b"false", Exited(1)),
        (b"exit 0", Exited(0)),
        (b"exit 255", Exited(255)),
        (b"/bin/sh -c false", Exited(1)),
        (b"kill -SEGV $$", Signalled(signal.SIGSEGV)),
        (b"kill -TERM $$", Signalled(signal.SIGTERM)),
        (b"kill -KILL $$", Signalled(signal.SIGKILL)),
        (b"(kill -SEGV $$) ; true", Signalled(signal.SIGSEGV)),
        (b"sh -c 'kill -SEGV $$'; exit 3", Exited(3)),
        (b"no-such-program-here", Exited(127)),
        (b"/no/such/program", Exited(127)),
        (b"/etc/passwd", Exited(126)),
        (b"if", Exited(2)),
        (b"", Exited(0)),
    ],
)
def test_endings(run: Any, command: bytes, ending: object) -> None:
    assert run(command).ending == ending


def test_a_script_without_its_interpreters_name_is_run_by_the_shell(run: Any, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo ran $1", encoding="utf-8")
    (tmp_path / "script").chmod(0o755)
    assert text(run(os.fsencode(tmp_path / "script") + b" it").stdout) == b"ran it\n"


@pytest.mark.parametrize(
    "command", [b"sleep 1000", b"sleep 1000 & sleep 1000", b"trap '' TERM INT; sleep 1000; sleep 1000"]
)
def test_when_its_time_is_up_it_is_killed_with_its_children(run: Any, command: bytes) -> None:
    done = run(command, timeout_s=0.2)
    assert done.ending == TimedOut()
    assert 0.2 <= done.elapsed_s < 30


def test_what_it_wrote_before_its_time_was_up_is_kept(run: Any) -> None:
    done = run(b"echo out; echo err >&2; sleep 1000", timeout_s=0.5)
    assert (done.ending, text(done.stdout), text(done.stderr)) == (TimedOut(), b"out\n", b"err\n")


def test_its_time_is_up_although_it_never_stops_writing(run: Any) -> None:
    for command in (b"while :; do echo x; done", b"yes"):  # the second one fills the pipe faster than we read
        done = run(command, timeout_s=0.1)
        assert done.ending == TimedOut()


@pytest.mark.parametrize("timeout_s", [86400.0, 1e9, 1e300])
def test_a_long_time_limit_is_none(run: Any, timeout_s: float) -> None:
    assert run(b"sleep 0.1", timeout_s=timeout_s).ending == Exited(0)


@pytest.mark.parametrize("how", ["closes", "speaks", "ends its side"])
def test_it_is_killed_when_whoever_wants_it_leaves(run: Any, tmp_path: Path, how: str) -> None:
    ours, theirs = socket.socketpair()

    def leave() -> None:
        wait_until((tmp_path / "started").exists)
        match how:
            case "closes":
                theirs.close()
            case "speaks":
                theirs.send(b"x")
            case "ends its side":
                theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=leave)
    thread.start()
    done = run(b"sleep 1000 & : > $MARK/started; sleep 1000", cancel=ours.fileno())
    thread.join()
    assert done.ending == Cancelled()
    ours.close()
    theirs.close()


def test_a_cancel_that_never_comes_changes_nothing(run: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert run(b"sleep 0.1; exit 4", cancel=ours.fileno(), timeout_s=60).ending == Exited(4)


# --- what it wrote --------------------------------------------------------------------------------------


def test_a_megabyte_on_each_stream(run: Any) -> None:
    """Nobody may wait for the process before its pipes are drained."""
    done = run(b"head -c 1048576 /dev/zero; head -c 1048576 /dev/zero | tr '\\0' e >&2; exit 5")
    assert done.ending == Exited(5)
    assert text(done.stdout) == bytes(MIB)
    assert text(done.stderr) == b"e" * MIB


def test_twenty_megabytes_are_not_held_in_memory(run: Any, tmp_path: Path) -> None:
    done = run(b"head -c 20971520 /dev/zero & head -c 20971521 /dev/zero >&2; wait")
    assert (done.stdout.size, done.stderr.size) == (20 * MIB, 20 * MIB + 1)
    for capture in (done.stdout, done.stderr):
        assert capture.file() is not None
        assert not capture._pieces
        assert sum(map(len, capture.pieces())) == capture.size
        assert not any(map(any, capture.pieces()))
    assert list(tmp_path.iterdir()) == [], "the files have no name"


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, SPILL_BYTES, SPILL_BYTES + 1])
def test_every_byte_comes_in_order(run: Any, size: int) -> None:
    done = run(b"yes 0123456789 | head -c %d" % size)
    assert text(done.stdout) == (b"0123456789\n" * (size // 11 + 1))[:size]
    assert (done.stdout.file() is not None) == (size > SPILL_BYTES)


def test_bytes_come_unchanged(run: Any) -> None:
    assert text(run(b"printf '\\000\\377\\r\\n\\033[0m'").stdout) == b"\0\xff\r\n\x1b[0m"


def test_a_stream_closed_early_is_no_trouble(run: Any) -> None:
    done = run(b"exec >&- ; sleep 0.1; echo err >&2; exit 6")
    assert (done.ending, text(done.stdout), text(done.stderr)) == (Exited(6), b"", b"err\n")


def test_a_spill_file_that_can_not_be_made_ends_the_command(tmp_path: Path) -> None:
    def refuse() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    environment = {b"PATH": PATH, b"MARK": os.fsencode(tmp_path)}
    with pytest.raises(OSError, match="No space left"):
        process.run(b"yes; sleep 1000", environment, streams=(Capture(refuse), Capture(refuse)))


@pytest.mark.parametrize("spill", [spill_to_disk, spill_to_memory])
@pytest.mark.parametrize("most", [0, 10, SPILL_BYTES, 2 * MIB])
def test_a_capture_keeps_no_more_than_it_may(spill: Callable[[], int], most: int) -> None:
    capture = Capture(spill, most)
    written = b"0123456789\n" * 300_000
    for start in range(0, len(written), 100_001):
        capture.write(written[start : start + 100_001])
    kept = written[:most] if most else written
    assert (text(capture), capture.size, capture.cut) == (kept, len(kept), len(written) - len(kept))
    capture.mark_cut(b"!")
    assert text(capture)[-1:] == b"!" and capture.size == len(kept) + 1
    capture.close()


# --- its children ---------------------------------------------------------------------------------------


def test_a_child_in_the_background_is_killed_with_it(run: Any) -> None:
    started = time.monotonic()
    done = run(b"sleep 1000 & echo $!")
    assert done.ending == Exited(0)
    assert time.monotonic() - started < 30
    wait_until(lambda: not is_alive(int(text(done.stdout))))


def test_what_a_background_child_wrote_before_the_end_is_kept(run: Any, tmp_path: Path) -> None:
    done = run(b"(echo early; : > $MARK/wrote; sleep 1000) & while [ ! -e $MARK/wrote ]; do sleep 0.02; done")
    assert text(done.stdout) == b"early\n"


def test_who_left_the_session_and_holds_the_pipe_does_not_hold_us(run: Any, tmp_path: Path) -> None:
    """Only an executor can kill those (`end_strays`); here it is enough to come to an end."""
    done = run(
        b"setsid sh -c 'echo $$ > $MARK/pid; mv $MARK/pid $MARK/id; exec sleep 1000' & while [ ! -e $MARK/id ]; do sleep 0.02; done"
    )
    stray = int((tmp_path / "id").read_text(encoding="utf-8"))
    assert done.ending == Exited(0)
    assert is_alive(stray)
    os.kill(stray, signal.SIGKILL)


def test_strays_are_ended_after_the_command_and_before_the_pipes_are_read_out(run: Any, tmp_path: Path) -> None:
    ended = []

    def end_strays() -> None:
        for pid in processes_in(tmp_path):
            os.kill(pid, signal.SIGKILL)
        ended.append(1)

    started = time.monotonic()
    done = run(b"setsid sleep 1000 & exit 7", end_strays=end_strays)
    assert done.ending == Exited(7) and ended == [1]
    assert time.monotonic() - started < 30


# --- what it gets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [b"cat", b"cat; read x || echo none", b"wc -c"])
def test_standard_input_is_empty(run: Any, command: bytes) -> None:
    assert run(command).ending == Exited(0)


def inheritable() -> set[bytes]:
    """Files that we were started with, which any program of ours gets, too."""
    found = set()
    for name in os.listdir(b"/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(name)):
                found.add(name)
    return found


@pytest.mark.parametrize("command", [b"ls -l /proc/self/fd", b"ls -l /proc/self/fd; true"])
def test_it_has_its_three_streams_and_no_other_file_of_ours(run: Any, command: bytes) -> None:
    reader, writer = os.pipe()
    lines = text(run(command).stdout).splitlines()
    os.close(reader)
    os.close(writer)
    files = dict(line.split()[-3::2] for line in lines if b" -> " in line)
    assert files[b"0"] == b"/dev/null"
    assert files[b"1"].startswith(b"pipe:") and files[b"2"].startswith(b"pipe:")
    assert files[b"1"] != files[b"2"]
    others = [file for number, file in files.items() if number not in {b"0", b"1", b"2"} | inheritable()]
    assert [os.path.basename(file) for file in others] == [b"fd"], "the directory that ls reads"


def test_it_has_exactly_the_given_environment(run: Any, tmp_path: Path) -> None:
    lines = text(run(b"/usr/bin/env", environment={b"ODD": b"\xff=\n"}).stdout)
    assert sorted(lines.split(b"\n")) == sorted(
        [b"PATH=" + PATH, b"MARK=" + os.fsencode(tmp_path), b"ODD=\xff=", b"", b""]
    )


@pytest.mark.parametrize("command", [b"grep Sig /proc/self/status", b"grep Sig /proc/self/status;"])
def test_no_signal_is_blocked_or_ignored(run: Any, command: bytes) -> None:
    """Python ignores SIGPIPE; a command must not."""
    lines = dict(line.split(b":\t") for line in text(run(command).stdout).splitlines())
    assert int(lines[b"SigBlk"], 16) == 0
    internal = 0b11 << 31  # 32 and 33 belong to the C library, whose posix_spawn ignores them
    assert int(lines[b"SigIgn"], 16) & ~internal == 0


def test_it_has_a_session_of_its_own(run: Any) -> None:
    pid, _, _, _, group, session, *_ = text(run(b"cat /proc/self/stat").stdout).split()
    assert pid == group == session


def test_it_runs_in_the_given_directory(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a 'b'").mkdir()
    done = run(b"pwd", directory=os.fsencode(tmp_path / "a 'b'"))
    assert text(done.stdout).strip() == os.fsencode(tmp_path / "a 'b'")


# --- what can't be started ------------------------------------------------------------------------------


def test_a_command_longer_than_the_system_takes_could_not_be_started(run: Any) -> None:
    done = run(b"echo " + b"'x'" * 50_000)
    assert isinstance(done.ending, CouldNotStart)
    assert "too long" in done.ending.text


def test_a_long_command_of_plain_words_is_no_trouble(run: Any) -> None:
    """Each word may have 128 KiB, the whole some 2 MiB; a shell's one word could not."""
    words = b" word" * 50_000
    assert len(words) > 128 << 10
    assert text(run(b"/bin/echo" + words).stdout) == words[1:] + b"\n"


@pytest.mark.parametrize(
    ("command", "environment"),
    [(b"echo a\0b", {}), (b"true", {b"A=B": b"c"}), (b"true", {b"A": b"b\0c"}), (b"true", {b"": b"c"})],
)
def test_what_no_program_could_be_given_could_not_be_started(
    run: Any, command: bytes, environment: dict[bytes, bytes]
) -> None:
    done = run(command, environment=environment)
    assert isinstance(done.ending, CouldNotStart) and done.ending.text
    assert done.stdout.size == done.stderr.size == 0


# --- what it used ---------------------------------------------------------------------------------------


def test_time_and_memory_are_measured(run: Any) -> None:
    busy = run(b"i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    assert 0.01 < busy.cpu_s <= busy.elapsed_s + 0.1
    idle = run(b"sleep 0.3")
    assert idle.elapsed_s >= 0.3 and idle.cpu_s < 0.2
    large = run(b"head -c 104857600 /dev/zero | tail -n 1 | wc -c")
    assert large.peak_memory_bytes > 90 * MIB


def test_its_process_id_is_told(run: Any) -> None:
    told: list[int] = []
    done = run(b"echo $$; true", on_start=told.append)
    assert told == [int(text(done.stdout))]


def test_hundreds_in_a_row_leave_nothing_open(run: Any) -> None:
    before = os.listdir("/proc/self/fd")
    for number in range(200):
        assert run(b"exit %d" % (number % 10)).ending == Exited(number % 10)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_threads_run_commands_side_by_side(tmp_path: Path) -> None:
    failures: list[object] = []

    def run_some(thread: int) -> None:
        for number in range(20):
            done = process.run(b"echo %d %d; exit %d" % (thread, number, number), {b"PATH": PATH})
            if (text(done.stdout), done.ending) != (b"%d %d\n" % (thread, number), Exited(number)):
                failures.append(done)
            done.close()

    threads = [threading.Thread(target=run_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
