"""Servers, workers and clients that die in the middle, at moments that a seed picks: the build ends right, or says
clearly why not; nothing is left running or lying about; and who lives serves the next build."""

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from farm_vocabulary import Project, commands_on, outputs_of, places_of, wait_until_idle
from server_vocabulary import Server, StartServer, open_server, wait_until

Farm = tuple[Server, ...]
TwoServers = tuple[Server, Server]

FEW = 3
MANY = 20


def moments(parameter: str = "seed") -> pytest.MarkDecorator:
    """The seeds of the repetitions: a few by default, the rest where time does not matter."""
    slow = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(FEW, MANY)]
    return pytest.mark.parametrize(parameter, [*range(FEW), *slow])


def write_build(project: Project, actions: int = 6, size: int = 400_000) -> None:
    """Actions of some 0.2 s, each of which turns an input of its own into an output."""
    lines = []
    for number in range(actions):
        project.write(f"in{number}", random.Random(number).randbytes(size))
        lines += [f"remote-sleep 0.15; cat in{number} in{number} > out{number}; sleep 0.05", f"> requires in{number}"]
    project.rakefile("a:", *lines)


def check_outputs(project: Project, actions: int = 6) -> None:
    for number in range(actions):
        assert project.read(f"out{number}") == project.read(f"in{number}") * 2


def check_still_serves(project: Project, server: Server) -> None:
    """A build on this server alone uses every slot of it, and comes out right."""
    for path in project.path.glob("out*"):
        path.unlink()
    project.rakefile("a:", *(f"remote-sleep 0.1; echo fine > out{number}" for number in range(2)))
    built = project.build("--json", hosts=[server])
    assert built.status == 0, built.stderr
    assert outputs_of(built.events()) == {"out0", "out1"}
    wait_until_idle(server)


def check_ended(server: Server) -> None:
    """After a server that was killed: whatever it had started ends by itself."""
    server.process.wait()
    wait_until(lambda: not commands_on(server), "the commands of the killed server gone")
    server.end()


def check_swept(server: Server, tmp_path: Path) -> None:
    """And the next server removes its directories."""
    check_ended(server)
    place = tmp_path / "successor"
    place.mkdir()
    successor = open_server(place, "--slots", "1", env={"TMPDIR": str(server.scratch)})
    try:
        assert server.sandboxes() == []
    finally:
        successor.end()
    assert server.directories() == []


def wait_for_commands(server: Server, count: int = 1) -> list[int]:
    """Until the server runs commands; answers their processes."""

    def running() -> list[int]:
        pids = commands_on(server)
        return pids if len(pids) >= count else []

    return wait_until(running, "commands running")


def sleep_up_to(chance: random.Random, longest_s: float) -> None:
    """A moment that the seed picks. Whatever happens to run then, the result must be right."""
    time.sleep(chance.uniform(0, longest_s))


# --- workers --------------------------------------------------------------------------------------------


@moments()
def test_a_worker_that_is_killed_loses_no_action(project: Project, two_servers: TwoServers, seed: int) -> None:
    chance = random.Random(seed)
    write_build(project)
    client = project.start(hosts=two_servers)
    client.wait_for("action_placed")
    sleep_up_to(chance, 0.7)
    os.kill(chance.choice(two_servers[0].worker_pids()), signal.SIGKILL)
    built = client.end()
    assert built.status == 0, built.stderr
    check_outputs(project)
    for server in two_servers:
        wait_until_idle(server)
        check_still_serves(project, server)


def test_every_worker_that_is_killed_at_once_loses_no_action(project: Project, two_servers: TwoServers) -> None:
    write_build(project)
    client = project.start(hosts=two_servers)
    wait_for_commands(two_servers[0])
    for pid in two_servers[0].worker_pids():
        os.kill(pid, signal.SIGKILL)
    built = client.end()
    assert built.status == 0, built.stderr
    check_outputs(project)
    wait_until_idle(two_servers[0])
    wait_until(lambda: len(two_servers[0].worker_pids()) == 4, "workers started again")
    check_still_serves(project, two_servers[0])


def test_the_only_server_whose_worker_is_killed_runs_it_again(project: Project, start_server: StartServer) -> None:
    server = start_server("--slots", "1")
    project.rakefile("a:", "remote-sleep 0.5; echo fine > out")
    client = project.start(hosts=[server])
    wait_for_commands(server)
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    assert client.end().status == 0
    assert len(client.matching("action_retried", {})) == 1
    assert project.read("out") == b"fine\n"


def test_a_command_that_is_killed_has_failed_and_is_not_run_again(project: Project, start_server: StartServer) -> None:
    server = start_server("--slots", "1")
    project.rakefile("a:", "remote-exec sleep 600; true")
    client = project.start(hosts=[server])
    (pid,) = wait_for_commands(server)
    os.kill(pid, signal.SIGKILL)
    built = client.end()
    assert built.status == 1
    assert built.says("killed by signal 9 (SIGKILL)")
    assert len(places_of(client.events())) == 1


def test_a_lost_action_with_fallback_never_is_told_and_not_run_again(
    project: Project, start_server: StartServer
) -> None:
    server = start_server("--slots", "1")
    project.rakefile("a:", "remote-echo once >&2; sleep 600; touch out")
    client = project.start("--fallback", "never", hosts=[server])
    wait_for_commands(server)
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    built = client.end()
    assert built.status == 3
    assert built.says(f"{server.address}: lost: ")
    assert len(places_of(client.events())) == 1
    assert project.made() == set()


# --- whole servers --------------------------------------------------------------------------------------


@moments()
def test_a_server_that_is_killed_loses_no_action(project: Project, two_servers: TwoServers, seed: int) -> None:
    chance = random.Random(seed)
    victim, other = two_servers
    write_build(project)
    client = project.start(hosts=two_servers)
    client.wait_for("action_placed")
    sleep_up_to(chance, 0.7)
    victim.process.kill()
    built = client.end()
    assert built.status == 0, built.stderr
    check_outputs(project)
    check_ended(victim)
    wait_until_idle(other)
    check_still_serves(project, other)


def test_the_only_server_that_is_killed_is_named(project: Project, start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--slots", "2")
    write_build(project)
    client = project.start(hosts=[server])
    wait_for_commands(server)
    server.process.kill()
    built = client.end()
    assert built.status == 3
    assert built.says(f"{server.address}: ")
    for name in project.made() - {f"in{number}" for number in range(6)}:  # what was done before, is whole
        assert project.read(name) == project.read(f"in{name[3:]}") * 2
    check_swept(server, tmp_path)


def test_the_only_server_that_is_killed_may_be_replaced_by_this_machine(
    project: Project, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--slots", "2")
    write_build(project)
    client = project.start("--fallback", "local", hosts=[server])
    wait_for_commands(server)
    server.process.kill()
    assert client.end().status == 0
    check_outputs(project)
    check_swept(server, tmp_path)


BIG = 60 << 20


@pytest.fixture(scope="module")
def big_input(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file whose transfer takes a while."""
    path = tmp_path_factory.mktemp("big") / "in"
    piece = random.Random(1).randbytes(1 << 20)
    with path.open("wb") as file:
        for number in range(BIG >> 20):
            file.write(piece[:-8] + number.to_bytes(8, "big"))
    yield path
    path.unlink()


@moments()
def test_a_server_that_is_killed_in_mid_transfer_loses_no_action(
    project: Project, two_servers: TwoServers, big_input: Path, seed: int
) -> None:
    chance = random.Random(seed)
    os.link(big_input, project.path / "in")
    project.rakefile("a:", "remote-sha256sum < in > sum; cp in copy", "> requires in")
    client = project.start(hosts=two_servers)
    host = client.wait_for("action_placed")[0]["host"]
    victim, other = two_servers if two_servers[0].address == host else two_servers[::-1]
    sleep_up_to(chance, 0.4)
    victim.process.kill()
    built = client.end()
    assert built.status == 0, built.stderr
    with big_input.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert project.read("sum").split()[0].decode() == digest
    with (project.path / "copy").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    check_ended(victim)
    wait_until_idle(other)
    check_still_serves(project, other)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_a_server_that_stands_still_is_lost_after_a_while(
    project: Project, two_servers: TwoServers, whole: bool
) -> None:
    victim, other = two_servers
    write_build(project)
    client = project.start(hosts=two_servers)
    wait_for_commands(victim)
    stopped = victim.tree() if whole else [psutil.Process(pid) for pid in victim.worker_pids()]
    for process in stopped:
        process.suspend()
    started = time.monotonic()
    try:
        built = client.end()
        elapsed_s = time.monotonic() - started
    finally:
        for process in stopped:
            if process.is_running():
                process.resume()
    assert built.status == 0, built.stderr
    assert 5 < elapsed_s < 25
    check_outputs(project)
    assert client.matching("action_retried", {"host": victim.address})
    for server in two_servers:
        wait_until_idle(server)
        check_still_serves(project, server)
    assert other.address in places_of(client.events())


# --- clients --------------------------------------------------------------------------------------------


@moments()
def test_a_client_that_is_killed_leaves_nothing_on_the_servers(project: Project, farm: Farm, seed: int) -> None:
    chance = random.Random(seed)
    write_build(project, 12)
    client = project.start(hosts=farm[:2])
    client.wait_for("action_placed")
    sleep_up_to(chance, 0.7)
    client.process.kill()
    client.process.communicate()
    for server in farm[:2]:
        wait_until_idle(server)
        check_still_serves(project, server)


@moments()
def test_a_client_that_is_killed_in_mid_transfer_leaves_nothing(
    project: Project, farm: Farm, big_input: Path, seed: int
) -> None:
    chance = random.Random(seed)
    server = farm[0]
    os.link(big_input, project.path / "in")
    project.rakefile("a:", "remote-cp in copy", "> requires in")
    client = project.start(hosts=[server])
    client.wait_for("action_placed")
    sleep_up_to(chance, 0.5)
    client.process.kill()
    client.process.communicate()
    wait_until_idle(server)
    if (project.path / "copy").exists():  # it was quicker than we
        assert (project.path / "copy").stat().st_size == BIG
    assert not list((server.scratch.parent / "cache").rglob("new/*"))
    check_still_serves(project, server)


def test_a_client_that_is_killed_leaves_no_local_command(project: Project) -> None:
    marks = [project.scratch / f"mark{index}" for index in range(3)]
    project.rakefile("a:", "true", "b:", *[f"sleep 600 & sleep 0.3; touch {mark}; sleep 600" for mark in marks])
    client = project.start()
    wait_until(lambda: all(mark.exists() for mark in marks), "all three commands running")
    client.process.kill()
    client.process.communicate()
    wait_until(lambda: not project.processes(), "all commands gone", 10.0)


def test_a_build_without_local_actions_has_no_guard(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "remote-sleep 600")
    client = project.start(hosts=farm)
    client.wait_for("action_placed")
    assert set(project.processes()) == {client.process.pid}
    client.process.terminate()
    assert client.end().status == 143


def test_an_embedded_farm_ends_with_its_client(project: Project) -> None:
    project.rakefile("a:", "remote-sleep 600")
    client = project.start()
    client.wait_for("action_placed")
    client.process.kill()
    client.process.communicate()
    wait_until(lambda: not project.processes(), "the embedded farm gone")
    for directory in project.tmp.glob("rakefarm-*"):
        assert not list(directory.glob("server-*/worker-*/*"))


@pytest.mark.parametrize(
    ("number", "embedded"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGHUP, False), (signal.SIGINT, True)],
)
def test_an_interrupt_stops_every_command(project: Project, farm: Farm, number: signal.Signals, embedded: bool) -> None:
    server = farm[0]
    endless = "trap '' INT TERM HUP; touch {}; sleep 600 & sleep 600"
    marks = [project.scratch / f"mark{index}" for index in range(3)]
    lines = [("remote-" if index else "") + endless.format(mark) for index, mark in enumerate(marks)]
    project.rakefile("a:", *lines, "next:", "touch later")
    client = project.start("-j", "2", hosts=[] if embedded else [server])
    wait_until(lambda: all(mark.exists() for mark in marks), "all three commands running")
    started = time.monotonic()
    client.process.send_signal(number)
    built = client.end()
    elapsed_s = time.monotonic() - started
    assert built.status == 128 + number
    assert built.says(f"stopped by {number.name}; every command that was running has been killed")
    assert elapsed_s < 2.0
    wait_until(lambda: not commands_on(server) and not project.processes(), "all commands gone", 2.0 - elapsed_s)
    assert project.made() == set()
    last = client.events()[-1]
    assert (last["event"], last["interrupted"], last["exit_status"]) == ("build_finished", True, built.status)


def test_what_an_interrupt_stops_is_counted(project: Project, farm: Farm) -> None:
    server = farm[0]
    marks = [project.scratch / f"mark{index}" for index in range(3)]
    lines = [("remote-" if index else "") + f"touch {mark}; sleep 600" for index, mark in enumerate(marks)]
    lines += ["sleep 600"] * 5
    project.rakefile("first:", "true", "a:", *lines, "next:", "true", "true")
    (project.scratch / "few.toml").write_text("local_jobs = 1\n")
    client = project.start("--config", str(project.scratch / "few.toml"), hosts=[server])
    wait_until(lambda: all(mark.exists() for mark in marks), "all three commands running")
    client.process.send_signal(signal.SIGINT)
    built = client.end()
    assert built.says("interrupted: 1 action, 3 stopped, 7 not started in ")
    last = client.events()[-1]
    assert (last["succeeded"], last["stopped"], last["not_started"]) == (1, 3, 7)


def test_a_second_interrupt_changes_nothing(project: Project, farm: Farm) -> None:
    server = farm[0]
    project.rakefile("a:", "remote-sleep 600", "sleep 600")
    client = project.start(hosts=[server])
    wait_for_commands(server)
    for _ in range(5):
        client.process.send_signal(signal.SIGINT)
    assert client.end().status == 130
    wait_until_idle(server)


@moments()
def test_an_interrupt_at_any_moment_ends_clearly(project: Project, farm: Farm, seed: int) -> None:
    chance = random.Random(seed)
    write_build(project)
    client = project.start(hosts=farm[:2])
    client.wait_for("build_started")
    sleep_up_to(chance, 0.9)
    client.process.send_signal(signal.SIGINT)
    built = client.end()
    assert built.status == 130 or (built.status == 0 and client.events()[-1]["succeeded"] == 6)
    if built.status == 130:
        assert built.says("stopped by SIGINT")
    for number in range(6):
        if (project.path / f"out{number}").exists():
            assert project.read(f"out{number}") == project.read(f"in{number}") * 2
    for server in farm[:2]:
        wait_until_idle(server)
