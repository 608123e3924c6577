"""Who gets the work: equal hosts share it, a busy one gets less, and many clients at once never get in each other's
way."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm_vocabulary import SPIN, Project, on_processor, wait_until_idle
from server_vocabulary import Server, StartServer

TwoServers = tuple[Server, Server]


def shares(project: Project, servers: TwoServers, command: str, actions: int, *options: str) -> Counter[str]:
    """How many of equal actions each server got."""
    project.rakefile("a:", *[f"remote-{command}"] * actions)
    built = project.build("--json", *options, hosts=servers)
    assert built.status == 0, built.stderr
    return Counter(str(event["host"]) for event in built.events() if event["event"] == "action_finished")


def test_equal_hosts_share_equal_actions(project: Project, two_servers: TwoServers) -> None:
    first, second = (server.address for server in two_servers)
    got: Counter[str] = Counter()
    # On a machine that others keep busy too a build may lean to one side, but not all builds to the same.
    for builds in range(1, 5):
        got += shares(project, two_servers, "sleep 0.2", 20)
        assert got[first] + got[second] == 20 * builds
        if abs(got[first] - got[second]) <= 4 * builds:
            return
    raise AssertionError(got)


def test_a_host_with_more_slots_gets_more(project: Project, start_server: StartServer) -> None:
    servers = start_server("--slots", "1"), start_server("--slots", "4")
    got = shares(project, servers, "sleep 0.2", 20)
    assert got[servers[1].address] > got[servers[0].address] > 0, got


@pytest.fixture
def busy_processor() -> Iterator[tuple[int, int]]:
    """Somebody else's work keeps the first of two processors busy; answers both numbers."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        pytest.skip("this machine has one core")
    with on_processor(processors[0]):
        # A session each: the kernel shares a processor among sessions before it does among processes. More of them than
        # there are tests at one time, all of which are driven to the other processor, and keep that busy, too.
        work = [subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True) for _ in range(10)]
    yield processors[0], processors[1]
    for process in work:
        process.kill()
        process.wait()


COMPUTE = "n=0; while [ $n -lt 40000 ]; do n=$((n+1)); done"


@pytest.mark.xdist_group("load")  # one at a time loads the machine
@pytest.mark.parametrize(("jobs", "command"), [("1", "sleep 0.05"), ("2", COMPUTE)], ids=["one", "two"])
def test_a_host_that_is_busy_with_other_work_gets_less(
    project: Project, start_server: StartServer, busy_processor: tuple[int, int], jobs: str, command: str
) -> None:
    servers = []
    for processor in busy_processor:
        with on_processor(processor):
            servers.append(start_server())  # a slot a core
    busy, idle = servers
    got: Counter[str] = Counter()
    # Whoever shares this machine may keep the second processor busy, too; that evens out over a few builds.
    for _ in range(10):
        got += shares(project, (busy, idle), command, 8, "-j", jobs)
        if got[busy.address] < got[idle.address]:
            return
    raise AssertionError(f"the busy host is {busy.address}: {got}")


def test_ten_clients_at_once_mix_nothing_up(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server("--slots", "2")
    projects = []
    for number in range(10):
        project = Project(tmp_path / f"client{number}")
        project.write("src/in.c", f"{number}\n" * 1000)
        project.write("in.h", f"header {number}\n")
        project.rakefile(
            "a:",
            *["remote-cat in.c in.h > out; cat in.h", "> requires src/in.c in.h"],
            *["remote-tac src/in.c > back; wc -c in.c > size", "> requires src/in.c"],
            "b:",
            *["remote-cat out back size > all", "> requires out back size"],
        )
        projects.append(project)
    clients = [project.start(hosts=[server]) for project in projects]
    for number, (project, client) in enumerate(zip(projects, clients, strict=True)):
        built = client.end()
        assert built.status == 0, built.stderr
        assert built.stdout == f"header {number}\n".encode()
        text = f"{number}\n" * 1000
        assert project.read("all").decode() == f"{text}header {number}\n{text}2000 in.c\n"
    for project in projects:
        project.check_nothing_is_left()
    wait_until_idle(server)


@pytest.mark.parametrize("policy", ["plan", "lowest"])
def test_a_waiting_client_is_served_when_another_is_done(
    tmp_path: Path, start_server: StartServer, policy: str
) -> None:
    server = start_server("--slots", "1")
    first, second = Project(tmp_path / "first"), Project(tmp_path / "second")
    go = tmp_path / "go"
    first.rakefile("a:", f"remote-until [ -e {go} ]; do sleep 0.02; done; touch out")
    second.rakefile("a:", "remote-touch out")
    holding = first.start(hosts=[server])
    holding.wait_for("action_placed")
    waiting = second.start("--policy", policy, hosts=[server])
    waiting.wait_for("quote_received")
    if policy == "lowest":  # it waits there, and not at home
        waiting.wait_for("action_placed")
        waiting.wait_for("action_phase", phase="queued")
    go.touch()
    assert holding.end().status == waiting.end().status == 0
    assert first.made() == second.made() == {"out"}
