"""The parts of isolation, each by itself; what they stop together is tried in tests/abuse."""

import os
import signal
import socket
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from server_vocabulary import is_alive, start_process

from rakefarm.config import Limits
from rakefarm.levels import LEVELS, PROTECTIONS, parse_uids, rank
from rakefarm.server.executors import ExecutorLost, Executors
from rakefarm.server.isolation import kernel, landlock, seccomp
from rakefarm.server.isolation.confinement import Confinement
from rakefarm.server.isolation.identity import Identities, NoIdentity
from rakefarm.server.isolation.probe import LevelFails, choose_confinement, try_level
from rakefarm.server.job import Ended
from rakefarm.server.limits import Watch, end_of, over, usage_below
from rakefarm.server.programs import choose_program

MIB = 1 << 20


def status_of(run: Callable[[], object]) -> int:
    """How a process that runs `run` ends; 1 when it raises."""
    return os.waitstatus_to_exitcode(os.waitpid(start_process(run), 0)[1])


# --- the filter of system calls ---------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", seccomp.AUDIT_ARCHITECTURES)
def test_every_jump_of_the_filter_lands_inside(architecture: str) -> None:
    program = seccomp.assemble(architecture)
    instructions = list(struct.iter_unpack("=HBBI", program))
    assert len(instructions) < 4096, "the kernel takes no more"
    for at, (code, when_true, when_false, _) in enumerate(instructions):
        if code & 7 == 5:
            assert max(at + 1 + when_true, at + 1 + when_false) < len(instructions)
    assert instructions[-1] == (0x06, 0, 0, 0x7FFF0000), "what nothing refuses is allowed"


def test_an_architecture_without_a_table_says_so() -> None:
    with pytest.raises(seccomp.NoTable, match="riscv64"):
        seccomp.assemble("riscv64")


@pytest.mark.skipif(kernel.ARCHITECTURE not in seccomp.AUDIT_ARCHITECTURES, reason="no table for this machine")
def test_what_the_filter_refuses_and_what_it_leaves() -> None:
    def run() -> None:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.restrict()
        for kind in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
            with pytest.raises(PermissionError):
                socket.socket(kind, socket.SOCK_DGRAM)
        with pytest.raises(PermissionError):
            socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with pytest.raises(PermissionError):
            kernel.unshare(kernel.CLONE_NEWUSER)
        one, other = socket.socketpair()
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        if not os.fork():  # by clone, since clone3 is hidden
            os._exit(0)
        assert os.wait()[1] == 0

    assert status_of(run) == 0


# --- Landlock ---------------------------------------------------------------------------------------------


def test_landlock_leaves_what_it_was_told_to(tmp_path: Path) -> None:
    try:
        landlock.best_abi()
    except OSError as error:
        pytest.skip(f"no Landlock here: {error}")
    (tmp_path / "own").mkdir()
    (tmp_path / "secret").write_text("x")

    def run() -> None:
        rules = landlock.Ruleset()
        rules.allow([str(tmp_path / "own"), str(tmp_path / "missing")], landlock.OWN)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        rules.restrict()
        (tmp_path / "own" / "file").write_text("y")
        (tmp_path / "own" / "sub").mkdir()
        os.rename(tmp_path / "own" / "file", tmp_path / "own" / "sub" / "file")
        for name in ("secret", "new"):
            with pytest.raises(PermissionError):
                (tmp_path / name).write_text("z")
        with pytest.raises(PermissionError):
            (tmp_path / "secret").read_text()

    assert status_of(run) == 0


# --- who commands are -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "5", "0-5", "7-6", "a-b", "1-4294967295", "-1-5", "1 - 5"])
def test_what_is_no_range_of_uids(text: str) -> None:
    with pytest.raises(ValueError):
        parse_uids(text)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has uids to give")
def test_no_two_servers_have_a_uid_in_common(tmp_path: Path) -> None:
    claims = str(tmp_path / "uids")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        first = os.fork()
        if not first:
            identities = Identities(claims, (60578, 60583), 4)
            os.write(writer, repr(identities.uids).encode())
            os.kill(os.getpid(), signal.SIGSTOP)  # it lives, and holds them
            os._exit(0)
        assert os.read(reader, 100) == b"[60578, 60579, 60580, 60581]"
        second = Identities(claims, (60578, 60583), 2)
        assert second.uids == [60582, 60583]
        second.close()
        with pytest.raises(NoIdentity, match="fewer than 3 are free"):
            Identities(claims, (60578, 60583), 3)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        third = Identities(claims, (60578, 60583), 3)
        assert third.uids == [60578, 60579, 60580]
        third.close()
    os.close(reader)
    os.close(writer)


# --- levels -----------------------------------------------------------------------------------------------


def test_levels_are_ranked_and_an_unknown_word_is_none() -> None:
    assert [rank(level) for level in LEVELS] == [0, 1, 2, 3]
    assert rank("virtual machine") == 0


def test_what_is_missing_shrinks_with_the_level() -> None:
    none, process, namespaces = (
        Confinement(level=level, own_processes=level != "none", box_bytes=1)
        for level in ("none", "process", "namespaces")
    )
    assert set(none.missing()) == set(PROTECTIONS)
    assert set(namespaces.missing()) < set(process.missing()) < set(none.missing())


def test_the_highest_level_that_holds_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def probe(confinement: Confinement, directory: str) -> None:
        tried.append((confinement.level, confinement.own_processes))
        if (confinement.level, confinement.own_processes) != ("process", False):
            raise LevelFails("not here")

    monkeypatch.setattr("rakefarm.server.isolation.probe._probe", probe)
    chosen = choose_confinement("auto", Confinement(), str(tmp_path))
    assert (chosen.level, chosen.own_processes) == ("process", False)
    assert tried == [
        ("namespaces", True), ("landlock", True), ("landlock", False), ("process", True), ("process", False),
    ]  # fmt: skip
    with pytest.raises(LevelFails, match="not here"):
        try_level("landlock", Confinement(), str(tmp_path))


def test_an_executor_that_can_not_be_confined_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "not allowed")

    monkeypatch.setattr(kernel, "drop_capabilities", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        executors = Executors([], Confinement(level="process"), str(tmp_path), 1)
    with pytest.raises(ExecutorLost, match="not allowed"):
        executors.take()
    executors.end_all()
    assert os.listdir(tmp_path) == []


# --- limits and programs ----------------------------------------------------------------------------------


def test_a_limit_is_told_with_its_key_and_unit() -> None:
    assert over("memory", 256 * MIB, "of memory").startswith("more than 256 MiB of memory; this server allows no more")
    assert "limits.time_s" in over("time_s", 1.5, "of time") and "1.5 s" in over("time_s", 1.5, "of time")
    assert "more than 20 outputs" in over("outputs", 20, "outputs")


@pytest.mark.parametrize(
    ("ended", "own_timeout_s", "key"),
    [
        (Ended("timed_out"), 0.0, "time_s"),
        (Ended("timed_out"), 9.0, "time_s"),
        (Ended("timed_out"), 5.0, ""),
        (Ended("signalled", 25), 0.0, "file_size"),
        (Ended("exited", 153), 0.0, "file_size"),
        (Ended("exited", 0), 0.0, ""),
        (Ended("signalled", 9), 0.0, ""),
    ],
)
def test_whose_limit_ended_a_command(ended: Ended, own_timeout_s: float, key: str) -> None:
    text = end_of(ended, Limits(time_s=5.0, file_size=MIB), own_timeout_s)
    assert (f"limits.{key} " in text) if key else not text


def test_usage_is_of_the_whole_tree_and_of_nobody_else(tmp_path: Path) -> None:
    def run() -> None:
        kept = bytearray(64 * MIB)
        if not os.fork():
            kept[0] = 1
        os.write(writer, b"x")
        while True:
            os.read(blocker, 1)

    reader, writer = os.pipe()
    blocker, _keep = os.pipe()
    pid = start_process(lambda: (start_process(run), os.read(blocker, 1)))
    try:
        assert os.read(reader, 1) and os.read(reader, 1)
        usage = usage_below(pid)
        assert usage.processes == 2
        watch = Watch(Limits(memory=16 * MIB), pid, (), True)
        assert "limits.memory" in watch.look()
        assert Watch(Limits(memory=1 << 40), pid, (), True).look() == ""
    finally:
        for child in _below(pid):
            os.kill(child, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert not is_alive(pid)
        for descriptor in (reader, writer, blocker, _keep):
            os.close(descriptor)


def _below(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize(
    ("command", "chosen"),
    [
        (b"cc -c a.c", b"/usr/bin/gcc-12 -c a.c"),
        (b"/usr/bin/gcc-12 -c a.c", b"/usr/bin/gcc-12 -c a.c"),
        (b"/tmp/cc -c a.c", None),
        (b"ld", None),
        (b"cc -c a.c; rm -rf .", None),
        (b"CC=x cc", None),
        (b"$(cc)", None),
        (b"", None),
    ],
)
def test_only_listed_programs_and_no_shell(command: bytes, chosen: bytes | None) -> None:
    assert choose_program(command, {"cc": "/usr/bin/gcc-12"}) == chosen
