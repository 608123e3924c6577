"""This machine among the hosts: it bids as they do, a user's builds share its cores, and make's job server is obeyed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm_vocabulary import CLIENT, SPIN, Project, places_of
from server_vocabulary import StartServer, file_for_commands, wait_until

SLOTS = {"RAKEFARM_LOCAL_SLOTS": "2"}
EMULATED = "[emulate]\ncores = 2\nspeed = 1.0\nbusy_cores = {}\n"
"""What this machine's own price is held against: 2 cores are shared with at most as many busy ones of others."""


def lap(log: Path, work: int = 20_000) -> str:
    """A command that is seen in `log` while it works: a line when it begins, one when it ends."""
    return f"echo + >> {log}; n=0; while [ $n -lt {work} ]; do n=$((n+1)); done; echo - >> {log}"


def most_at_once(log: Path) -> int:
    now = most = 0
    for line in log.read_text().split():
        now += 1 if line == "+" else -1
        most = max(most, now)
    assert now == 0
    return most


def test_it_builds_alone_and_is_said_to_have_won(project: Project) -> None:
    project.write("in", "text")
    project.rakefile("a:", "remote-cat in > out", "> requires in", "b:", "cat out")
    built = project.build("-v", "--hosts", "local")
    assert built.status == 0, built.stderr
    assert built.stdout == b"text"
    assert re.search(rb"line 2: cat in > out: on local at [0-9.]+", built.stderr)
    assert not built.says("embedded"), "it was named"


def test_it_is_named_in_a_rakefile_as_others_are(project: Project) -> None:
    project.write("Rakefile", "HOSTS = local nowhere.invalid\na:\n\tremote-true\n")
    built = project.build("-v")
    assert built.status == 0 and built.says("on local at") and built.says("nowhere.invalid:6238 left out")


def test_others_go_on_when_it_cannot_start(project: Project, start_server: StartServer) -> None:
    config = project.scratch / "config" / "rakefarm"
    config.mkdir(parents=True)
    (config / "server.toml").write_text("prot = 1\n")
    project.rakefile("a:", "remote-true")
    server = start_server()
    built = project.build("-v", hosts=["local", server])
    assert built.status == 0, built.stderr
    assert built.says(f"on {server.address} at")


# --- by price -------------------------------------------------------------------------------------------


@pytest.fixture
def busy() -> Iterator[None]:
    """Somebody else's work on every core."""
    spin = [sys.executable, "-c", SPIN]
    work = [subprocess.Popen(spin, start_new_session=True) for _ in range(4 * (os.cpu_count() or 1))]
    yield
    for process in work:
        process.kill()
        process.wait()


def first_choice(project: Project, start_server: StartServer, busy_cores: float) -> tuple[str, str]:
    """Where one action goes, this machine or a server that has two cores, so many of them busy."""
    config = project.scratch / "emulated.toml"
    config.write_text(EMULATED.format(busy_cores))
    server = start_server("--slots", "2", "--config", str(config))
    ready = project.scratch / "ready"
    project.rakefile("a:", f"until [ -e {ready} ]; do sleep 0.05; done", "b:", "remote-true")
    client = project.start("--policy", "lowest", hosts=["local", server])
    client.wait_for("host_ready", 2)  # by then its load has been sampled, too
    ready.touch()
    assert client.end().status == 0
    return places_of(client.events())[1], server.address


needs_few_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) != 2, reason="the prices that are compared are those of two cores"
)


@pytest.mark.xdist_group("load")  # one at a time loads the machine
@needs_few_cores
def test_its_own_load_makes_it_dear(project: Project, start_server: StartServer, busy: None) -> None:
    """With both cores busy a command here gets 2/3 of a core at most; there, with half of one busy, a whole one."""
    place, server = first_choice(project, start_server, 0.5)
    assert place == server


def test_it_is_cheaper_than_a_host_that_is_busier(project: Project, start_server: StartServer) -> None:
    """However busy this machine is, there a command gets a tenth of a core."""
    place, _ = first_choice(project, start_server, 19.0)
    assert place == "local"


# --- one budget -----------------------------------------------------------------------------------------


def test_builds_at_once_never_run_more_than_the_slots(tmp_path: Path) -> None:
    log, runtime = file_for_commands(tmp_path / "log"), tmp_path / "run"
    runtime.mkdir(0o700)
    env = {**SLOTS, "XDG_RUNTIME_DIR": str(runtime)}
    projects = [Project(tmp_path / name) for name in ("one", "other", "third")]
    for project in projects:
        project.rakefile("a:", *[lap(log), "remote-" + lap(log)] * 4)
    clients = [project.start("--hosts", "local", "-j", "8", env=env) for project in projects]
    for client in clients:
        built = client.end()
        assert built.status == 0, built.stderr
    assert log.read_text().count("+") == 24
    assert most_at_once(log) == 2
    for project in projects:
        project.check_nothing_is_left()


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_a_killed_build_frees_its_slots(tmp_path: Path, prefix: str) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(0o700)
    env = {**SLOTS, "XDG_RUNTIME_DIR": str(runtime)}
    one, other = Project(tmp_path / "one"), Project(tmp_path / "other")
    spin = "touch {}; while :; do :; done"
    marks = [one.scratch / "mark0", one.scratch / "mark1"]
    one.rakefile("a:", *[prefix + spin.format(mark) for mark in marks])
    other.rakefile("a:", prefix + "true")
    holder = one.start("--hosts", "local", env=env)
    wait_until(lambda: all(mark.exists() for mark in marks), "both slots taken")
    waiting = other.start("--hosts", "local", env=env)
    waiting.wait_for("action_queued")
    assert not waiting.matching("action_finished", {})
    holder.process.kill()
    holder.process.communicate()
    assert waiting.end().status == 0
    wait_until(lambda: not one.processes(), "nothing of it runs any more", 10.0)


def test_actions_that_wait_for_each_other_do_so_on_one_slot(project: Project) -> None:
    seen = project.scratch / "seen"
    seen.mkdir()
    meet = f"touch {seen}/$$; until [ $(ls {seen} | wc -l) -ge 4 ]; do sleep 0.05; done"
    project.rakefile("a:", *[meet] * 4)
    assert project.build(env={"RAKEFARM_LOCAL_SLOTS": "1"}).status == 0


def test_a_build_within_an_action_gets_on_in_its_slot(project: Project) -> None:
    project.write("inner/Rakefile", "a:\n\techo inner\n\tremote-echo there\n")
    inner = " ".join([*CLIENT, "-C inner --progress none"])
    project.rakefile("a:", inner, inner)
    built = project.build(env={"RAKEFARM_LOCAL_SLOTS": "1"})
    assert built.status == 0, built.stderr
    assert sorted(built.stdout.split()) == [b"inner", b"inner", b"there", b"there"]


# --- make's job server ----------------------------------------------------------------------------------


@pytest.fixture
def job_server(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A fifo with two tokens, as `make -j3` has it: its descriptor, and MAKEFLAGS."""
    path = tmp_path / "job server"
    os.mkfifo(path)
    tokens = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(tokens, b"xy")
    yield tokens, f" -j3 --jobserver-auth=fifo:{str(path).replace(' ', chr(92) + ' ')}"
    os.close(tokens)


def tokens_in(descriptor: int) -> bytes:
    try:
        found = os.read(descriptor, 100)
    except BlockingIOError:
        return b""
    os.write(descriptor, found)
    return bytes(sorted(found))


def test_each_command_has_a_token_and_only_local_ones_know_of_it(project: Project, job_server: tuple[int, str]) -> None:
    tokens, makeflags = job_server
    log = file_for_commands(project.scratch / "log")
    say = 'echo "<$MAKEFLAGS>"'
    project.rakefile("a:", *[lap(log), "remote-" + lap(log)] * 3, "false", "b:", say, "remote-" + say)
    built = project.build("-k", "--hosts", "local", env={"MAKEFLAGS": makeflags, "RAKEFARM_LOCAL_SLOTS": "8"})
    assert built.status == 1 and built.says("exit status 1")
    assert 1 < most_at_once(log) <= 3
    assert sorted(built.stdout.splitlines()) == sorted([f"<{makeflags}>".encode(), b"<>"])
    assert tokens_in(tokens) == b"xy"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_token_comes_back_from_a_build_that_is_stopped(
    project: Project, job_server: tuple[int, str], number: signal.Signals
) -> None:
    tokens, makeflags = job_server
    marks = [project.scratch / f"mark{index}" for index in range(3)]
    lines = [("remote-" if index % 2 else "") + f"touch {mark}; sleep 600" for index, mark in enumerate(marks)]
    project.rakefile("a:", *lines)
    client = project.start("--hosts", "local", env={"MAKEFLAGS": makeflags, "RAKEFARM_LOCAL_SLOTS": "8"})
    wait_until(lambda: all(mark.exists() for mark in marks), "all three running")
    assert tokens_in(tokens) == b""
    client.process.send_signal(number)
    assert client.end().status == 128 + number
    assert tokens_in(tokens) == b"xy"


def test_tokens_of_commands_on_its_server_come_back_even_from_a_killed_build(
    project: Project, job_server: tuple[int, str]
) -> None:
    tokens, makeflags = job_server
    marks = [project.scratch / f"mark{index}" for index in range(3)]
    project.rakefile("a:", *[f"remote-touch {mark}; sleep 600" for mark in marks])
    client = project.start("--hosts", "local", env={"MAKEFLAGS": makeflags, "RAKEFARM_LOCAL_SLOTS": "8"})
    wait_until(lambda: all(mark.exists() for mark in marks), "all three running")
    client.process.kill()
    client.process.communicate()
    wait_until(lambda: tokens_in(tokens) == b"xy", "both tokens back")


def style_of(make: str) -> list[str]:
    """What job servers this make can have."""
    version = subprocess.run([make, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return ["pipe", "fifo"] if tuple(int(part) for part in version.split(".")[:2]) >= (4, 4) else ["pipe"]


@pytest.mark.parametrize("style", ["pipe", "fifo"])
def test_make_gets_back_what_it_gave(project: Project, style: str) -> None:
    """GNU make itself counts its tokens at the end, and complains of one that is missing or too many."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make here")
    if style not in style_of(make):
        pytest.skip("this make has no job server that is a fifo: that came with 4.4")
    log = file_for_commands(project.scratch / "log")
    project.rakefile("a:", *[lap(log), "remote-" + lap(log)] * 3, "b:", "make -f sub.mk")
    beside = lap(log).replace("$", "$$")
    build = f"{' '.join(CLIENT)} --hosts local --progress none"
    project.write("Makefile", f"all: build one other\nbuild:\n\t+@{build}\none other:\n\t@{beside}\n")
    project.write("sub.mk", f"all: one other\none other:\n\t@{beside}\n")
    options = ["-j2"] if style == "pipe" and len(style_of(make)) == 1 else ["-j2", f"--jobserver-style={style}"]
    env = project.environment({"RAKEFARM_LOCAL_SLOTS": "8"})
    made = subprocess.run([make, *options], cwd=project.path, env=env, capture_output=True, timeout=100)
    assert made.returncode == 0, made.stderr
    assert b"warning" not in made.stderr and b"INTERNAL" not in made.stderr, made.stderr
    assert log.read_text().count("+") == 10
    assert most_at_once(log) <= 2


def test_a_rule_without_a_plus_is_warned_of_once(project: Project) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make here")
    project.rakefile("a:", "echo one", "echo two")
    project.write("Makefile", f"all:\n\t@{' '.join(CLIENT)}\n")
    made = subprocess.run([make, "-j2"], cwd=project.path, env=project.environment(), capture_output=True, timeout=100)
    assert made.returncode == 0, made.stderr
    if style_of(make) == ["pipe"]:
        assert made.stderr.count(b"warning:") == 1 and b"put a + before the command" in made.stderr
