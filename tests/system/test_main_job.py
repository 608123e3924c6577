"""Builds from end to end: real servers, the real client, a real compiler."""

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until `condition` holds; fails after DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


class Farm:
    """Servers for one test; everything of theirs must be gone afterwards."""

    def __init__(self, directory: Path) -> None:
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.scratch),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "XDG_CONFIG_HOME": str(directory / "config"),
        }
        self.servers: list[subprocess.Popen[str]] = []
        self.addresses: list[str] = []

    def start(self, *options: str) -> str:
        """A server on a port that the system picks; answers its address."""
        server = subprocess.Popen(
            [sys.executable, "-m", "rakefarm.server", "--until-eof", "--port", "0", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
            text=True,
        )
        assert server.stdout
        self.servers.append(server)
        line = server.stdout.readline()
        assert line.startswith("listening on "), line
        self.addresses.append(line.split()[2])
        return self.addresses[-1]

    def client(self, directory: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
        """Run the client on all servers, or on an embedded farm when there are none."""
        return subprocess.run(self.command(*options), cwd=directory, env=self.environment, capture_output=True)

    def command(self, *options: str) -> list[str]:
        """The client's command line."""
        hosts = ["--hosts", ",".join(self.addresses)] if self.addresses else []
        return [sys.executable, "-m", "rakefarm.client", *hosts, *options]

    def end(self) -> None:
        """End the servers and check that nothing is left of them."""
        family = []
        for server in self.servers:
            if server.poll() is None:
                family += psutil.Process(server.pid).children(recursive=True)
            assert server.stdin and server.stdout
            server.stdin.close()
            server.wait()
            server.stdout.close()
        wait_until(lambda: not any(process.is_running() for process in family))


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """Servers are started by the test, and ended here."""
    made = Farm(tmp_path)
    yield made
    made.end()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty directory to build in."""
    path = tmp_path / "project"
    path.mkdir()
    return path


def write(project: Path, rakefile: str, **files: str) -> None:
    """A Rakefile and other files."""
    (project / "Rakefile").write_text(rakefile, encoding="utf-8")
    for name, text in files.items():
        (project / name.replace("_", ".")).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("servers", [0, 3])
def test_example_is_byte_identical_to_a_local_build(farm: Farm, tmp_path: Path, servers: int) -> None:
    remote, here = tmp_path / "remote", tmp_path / "here"
    for copy in (remote, here):
        shutil.copytree(ROOT / "examples" / "tally", copy)
    for _ in range(servers):
        farm.start()
    done = farm.client(remote)
    assert done.returncode == 0, done.stderr
    local = (here / "Rakefile").read_text(encoding="utf-8").replace("remote-", "")
    (here / "Rakefile").write_text(local, encoding="utf-8")
    assert farm.client(here).returncode == 0
    names = [*(path.name for path in here.glob("*.o")), "tally"]
    assert len(names) == 29
    assert filecmp.cmpfiles(remote, here, names, shallow=False)[0] == names


def test_a_failure_lets_siblings_finish_and_stops_later_sets(farm: Farm, project: Path) -> None:
    farm.start()
    write(project, "a:\n\tremote-exit 3\n\tremote-echo sibling\n\tremote-kill -9 $$\nb:\n\techo later\n")
    done = farm.client(project)
    assert done.returncode == 1
    assert done.stdout == b"sibling\n"
    assert b"exit status 3" in done.stderr
    assert b"killed by signal 9 (SIGKILL)" in done.stderr


def test_missing_input_and_syntax_error(farm: Farm, project: Path) -> None:
    farm.start()
    write(project, "a:\n\tremote-cat x\n\t\trequires x\n")
    done = farm.client(project)
    assert (done.returncode, b"missing required file x" in done.stderr) == (1, True)
    write(project, "\trequires x\n")
    done = farm.client(project)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False)


def test_hosts_that_cannot_be_used(farm: Farm, project: Path) -> None:
    write(project, "a:\n\tremote-true\n")
    done = farm.client(project, "--hosts", "127.0.0.1:1,no-such-host.invalid")
    assert done.returncode == 3
    assert b"refused" in done.stderr
    assert b"resolved" in done.stderr
    assert farm.client(project, "--hosts", "127.0.0.1:1", "--fallback", "local").returncode == 0


def test_inputs_and_outputs_of_every_sort(farm: Farm, project: Path) -> None:
    farm.start()
    odd = os.fsdecode(b"caf\xe9 \xc3\xa9.txt")
    (project / odd).write_bytes(b"odd")
    (project / "empty").touch()
    (project / "tool").write_text("#!/bin/sh\necho made > new\n", encoding="ascii")
    (project / "tool").chmod(0o755)
    (project / "edited").write_bytes(b"before")
    (project / "touched").write_bytes(b"same")
    rakefile = (
        "a:\n\tremote-./tool && mkdir -p deep/er && cp tool empty caf* deep/er && printf after > edited && touch touched"
        " && chmod +x new && ln -s /etc/passwd link && : > zero\n"
        f"\t\trequires empty tool edited touched '{odd}'\n"
    )
    (project / "Rakefile").write_bytes(os.fsencode(rakefile))
    stamp = (project / "touched").stat().st_mtime_ns
    done = farm.client(project)
    assert done.returncode == 0, done.stderr
    assert (project / "deep" / "er" / odd).read_bytes() == b"odd"
    assert os.access(project / "deep" / "er" / "tool", os.X_OK)
    assert os.access(project / "new", os.X_OK)
    assert (project / "edited").read_bytes() == b"after"
    assert (project / "touched").stat().st_mtime_ns == stamp
    assert (project / "zero").stat().st_size == 0
    assert not (project / "link").exists()
    assert not list(project.glob(".rakefarm-*"))


def test_json_lines_hold_the_whole_build(farm: Farm, project: Path) -> None:
    farm.start()
    write(project, "a:\n\tremote-echo one\n")
    done = farm.client(project, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "build_started"
    assert events[-1]["event"] == "build_finished"
    assert any(event["event"] == "action_output" and event["stdout"] == "one\n" for event in events)


def test_two_equal_hosts_share_equal_actions(farm: Farm, project: Path) -> None:
    farm.start("--slots", "2")
    farm.start("--slots", "2")
    write(project, "a:\n" + "\tremote-sleep 0.2\n" * 20)
    done = farm.client(project, "--json")
    assert done.returncode == 0
    placed = [json.loads(line) for line in done.stdout.splitlines()]
    hosts = [event["host"] for event in placed if event["event"] == "action_placed"]
    assert abs(hosts.count(farm.addresses[0]) - 10) <= 2


def test_ten_clients_at_once_mix_nothing_up(farm: Farm, tmp_path: Path) -> None:
    farm.start()
    running = []
    for number in range(10):
        directory = tmp_path / f"client{number}"
        directory.mkdir()
        write(directory, "a:\n\tremote-cat in > out\n\t\trequires in\n" * 3)
        (directory / "in").write_text(str(number) * 1000, encoding="ascii")
        running.append((number, directory, subprocess.Popen(farm.command(), cwd=directory, env=farm.environment)))
    for number, directory, process in running:
        assert process.wait() == 0
        assert (directory / "out").read_text(encoding="ascii") == str(number) * 1000


def commands_left(marker: str) -> bool:
    """Whether a process with `marker` among its arguments is there."""
    for process in psutil.process_iter(["cmdline"]):
        if marker in (process.info["cmdline"] or []):
            return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_ends_takes_its_commands_along(farm: Farm, project: Path, number: signal.Signals) -> None:
    farm.start()
    marker = f"8{os.getpid()}{int(number)}"
    write(project, f"a:\n\tremote-sleep {marker}\n")
    client = subprocess.Popen(farm.command(), cwd=project, env=farm.environment, stderr=subprocess.PIPE)
    wait_until(lambda: commands_left(marker))
    client.send_signal(number)
    _, stderr = client.communicate()
    wait_until(lambda: not commands_left(marker))
    if number == signal.SIGINT:
        assert client.returncode == 130
        assert b"stopped by SIGINT" in stderr
    write(project, "a:\n\tremote-true\n")
    assert farm.client(project).returncode == 0


@pytest.mark.parametrize("whole_server", [False, True])
def test_a_killed_worker_or_server_loses_no_action(farm: Farm, project: Path, whole_server: bool) -> None:
    farm.start("--slots", "1")
    farm.start("--slots", "1")
    marker = f"7{os.getpid()}{int(whole_server)}"
    go = project / "go"
    waiting = f"sh -c 'while ! test -e {go}; do sleep 0.05; done' {marker}"
    write(project, f"a:\n\tremote-{waiting}; echo done > first\n\tremote-{waiting}; echo done > second\n")
    client = subprocess.Popen(farm.command(), cwd=project, env=farm.environment)
    wait_until(lambda: commands_left(marker))
    first = psutil.Process(farm.servers[0].pid)
    victims = [first] if whole_server else first.children()
    for victim in victims:
        victim.kill()
    go.touch()
    assert client.wait() == 0
    assert (project / "first").read_text() == (project / "second").read_text() == "done\n"
    wait_until(lambda: not commands_left(marker))
