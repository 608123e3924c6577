"""Copies of actions that take too long: the first result wins, the other is stopped, and nothing of that one counts;
whoever of the two dies, hangs, fails, or is interrupted."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm_vocabulary import Client, Project, commands_on, wait_until_idle
from server_vocabulary import Server, StartServer, is_alive, wait_until

EARLY_S = 6.0
"""Far less than a command of a host that is slow takes, and than a host that hangs is waited for."""


class Pair:
    """Two hosts, of which the `first` is the one that was awarded the action, and the `second` the one with the copy. A
    command finds in the directory `RAKEFARM_SHARED` the address of its host, and whether it may go on."""

    def __init__(self, tmp_path: Path, start_server: StartServer) -> None:
        self.hosts: list[Server] = []
        self._shared: dict[str, Path] = {}
        for number in range(2):
            shared = tmp_path / f"shared-{number}"
            shared.mkdir()
            server = start_server("--slots", "2", "--shared", str(shared))
            (shared / "name").write_text(server.address)
            self._shared[server.address] = shared
            self.hosts.append(server)
        self.first, self.second = self.hosts

    def note_first(self, address: object) -> None:
        """This one has the action."""
        self.first, self.second = sorted(self.hosts, key=lambda server: server.address != address)

    def give(self, server: Server, name: str, content: bytes) -> None:
        """A file in what the server shares."""
        (self._shared[server.address] / name).write_bytes(content)

    def let(self, server: Server) -> None:
        """Let the command at this host go on."""
        self.give(server, "go", b"")


WAITS = "until [ -e $RAKEFARM_SHARED/go ]; do sleep 0.02; done"


@pytest.fixture
def pair(tmp_path: Path, start_server: StartServer) -> Iterator[Pair]:
    yield Pair(tmp_path, start_server)


def start_both(project: Project, pair: Pair, command: str) -> Client:
    """Build with this one action, until it runs at both hosts."""
    project.rakefile("a:", f"remote-{command}", "> repeatable")
    client = project.start(hosts=pair.hosts)
    (placed,) = client.wait_for("action_placed", backup=False)
    pair.note_first(placed["host"])
    client.wait_for("action_placed", backup=True, host=pair.second.address)
    wait_until(lambda: commands_on(pair.first) and commands_on(pair.second), "commands at both hosts")
    return client


def ends_of_copies(client: Client) -> list[tuple[object, str]]:
    """Which host's copy came to nothing, and the first word of why."""
    ended = client.matching("copy_ended", {})
    return [(event["host"], str(event["reason"]).split(":")[0]) for event in ended]


def check_done_once(client: Client, server: Server, outcome: str = "succeeded") -> None:
    """The action has ended once, there, and was never bid for again."""
    (finished,) = client.matching("action_finished", {})
    assert (finished["host"], finished["outcome"]) == (server.address, outcome)
    assert len(client.matching("action_placed", {})) == 2
    assert not client.matching("action_retried", {})


def test_the_copy_wins_and_the_slow_command_is_stopped_when_the_build_ends(project: Project, pair: Pair) -> None:
    client = start_both(project, pair, f"{WAITS}; cp $RAKEFARM_SHARED/name out; cp out more; echo said")
    began = time.monotonic()
    pair.let(pair.second)
    built = client.end()
    assert not commands_on(pair.first), "a build ends when nothing of it runs any more"
    assert time.monotonic() - began < EARLY_S
    assert built.status == 0 and built.stdout == b"said\n", built.stderr
    assert project.read("out") == project.read("more") == pair.second.address.encode()
    check_done_once(client, pair.second)
    assert ends_of_copies(client) == [(pair.first.address, "superseded")]
    (finished,) = client.matching("build_finished", {})
    assert (finished["succeeded"], finished["failed"], finished["stopped"]) == (1, 0, 0)


def test_the_first_wins_after_all_and_the_copy_is_stopped(project: Project, pair: Pair) -> None:
    client = start_both(project, pair, f"{WAITS}; cp $RAKEFARM_SHARED/name out")
    pair.let(pair.first)
    assert client.end().status == 0
    assert not commands_on(pair.second)
    assert project.read("out") == pair.first.address.encode()
    check_done_once(client, pair.first)
    assert ends_of_copies(client) == [(pair.second.address, "superseded")]


def test_a_copy_that_fails_first_is_the_answer(project: Project, pair: Pair) -> None:
    client = start_both(project, pair, f"{WAITS}; echo wrong >&2; echo half > out; exit 3")
    pair.let(pair.second)
    built = client.end()
    assert built.status == 1 and built.says("exit status 3") and built.stderr.count(b"wrong\n") == 1
    assert project.made() == set()
    check_done_once(client, pair.second, "failed")
    assert not commands_on(pair.first)


def test_of_two_results_at_one_moment_one_counts(project: Project, pair: Pair) -> None:
    size = 300_000
    client = start_both(
        project, pair, f"{WAITS}; for n in a b c d; do head -c {size} $RAKEFARM_SHARED/bytes > $n; done"
    )
    pair.give(pair.first, "bytes", b"1" * size)
    pair.give(pair.second, "bytes", b"2" * size)
    for server in pair.hosts:
        pair.let(server)
    assert client.end().status == 0
    (only,) = {project.read(name) for name in "abcd"}
    assert len(only) == size
    winner = pair.first if only == b"1" * size else pair.second
    check_done_once(client, winner)
    assert not [name for name in project.names() if name.startswith(".")]


def test_a_winner_whose_outputs_can_not_be_written_has_failed(project: Project, pair: Pair) -> None:
    project.write("out/in-the-way", "x")
    client = start_both(project, pair, f"{WAITS}; cp $RAKEFARM_SHARED/name other; cp other out")
    pair.let(pair.second)
    built = client.end()
    assert built.status == 1 and built.says("can't write out"), built.stderr
    assert project.made() == {"out/in-the-way"}, "all or nothing"
    check_done_once(client, pair.second, "failed")
    assert not commands_on(pair.first)


def kill_workers(server: Server) -> None:
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)


def test_the_first_host_dies_and_the_copy_is_the_action(project: Project, pair: Pair) -> None:
    client = start_both(project, pair, f"{WAITS}; cp $RAKEFARM_SHARED/name out")
    kill_workers(pair.first)
    client.wait_for("copy_ended", host=pair.first.address)
    pair.let(pair.second)
    assert client.end().status == 0
    assert project.read("out") == pair.second.address.encode()
    check_done_once(client, pair.second)
    assert ends_of_copies(client) == [(pair.first.address, "lost")]


def test_the_host_of_the_copy_dies_and_the_first_goes_on(project: Project, pair: Pair) -> None:
    client = start_both(project, pair, f"{WAITS}; cp $RAKEFARM_SHARED/name out")
    kill_workers(pair.second)
    client.wait_for("copy_ended", host=pair.second.address)
    pair.let(pair.first)
    assert client.end().status == 0
    assert project.read("out") == pair.first.address.encode()
    check_done_once(client, pair.first)


def test_both_hosts_die_and_the_action_is_bid_for_again(project: Project, pair: Pair) -> None:
    client = start_both(project, pair, f"{WAITS}; cp $RAKEFARM_SHARED/name out")
    for server in pair.hosts:
        kill_workers(server)
    client.wait_for("action_placed", count=3)
    for server in pair.hosts:
        pair.let(server)
    assert client.end().status == 0
    assert len(client.matching("action_finished", {})) == len(client.matching("action_retried", {})) == 1
    assert project.read("out").decode() in [server.address for server in pair.hosts]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_both(project: Project, pair: Pair, number: signal.Signals) -> None:
    client = start_both(project, pair, f"{WAITS}; touch out")
    client.process.send_signal(number)
    sent = time.monotonic()
    assert client.end().status == 128 + number
    assert time.monotonic() - sent < 2.5
    for server in pair.hosts:
        wait_until(lambda server=server: not commands_on(server), "commands stopped", 2.0)  # type: ignore[misc]
    (finished,) = client.matching("build_finished", {})
    assert (finished["stopped"], finished["not_started"]) == (1, 0)
    assert project.made() == set()


def test_a_host_that_hangs_delays_the_end_of_the_build_a_little(project: Project, pair: Pair) -> None:
    client = start_both(project, pair, f"{WAITS}; cp $RAKEFARM_SHARED/name out")
    stopped = [pair.first.process.pid, *pair.first.worker_pids()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        pair.let(pair.second)
        began = time.monotonic()
        built = client.end()
        took = time.monotonic() - began
    finally:
        for pid in stopped:
            if is_alive(pid):
                os.kill(pid, signal.SIGCONT)
    assert built.status == 0 and 1.5 < took < EARLY_S, (took, built.stderr)
    assert built.says(f"{pair.first.address} left out: it did not stop an action within 2 s")
    check_done_once(client, pair.second)
    wait_until_idle(pair.first)


def test_a_host_that_hangs_with_an_action_delays_the_set_a_little(project: Project, pair: Pair) -> None:
    """Stopped when it has begun, so that no sign of it comes: the copy is there long before it is given up."""
    project.rakefile("a:", "remote-sleep 0.3; touch out", "> repeatable", "b:", "remote-touch last")
    client = project.start(hosts=pair.hosts)
    (running,) = client.wait_for("action_phase", phase="running")
    pair.note_first(running["host"])
    stopped = [pair.first.process.pid, *pair.first.worker_pids()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        built = client.end()
        took = time.monotonic() - began
    finally:
        for pid in stopped:
            if is_alive(pid):
                os.kill(pid, signal.SIGCONT)
    assert built.status == 0 and took < EARLY_S, (took, built.stderr)
    assert project.made() == {"out", "last"}
