"""Builds by an engine in this process: whatever closes it to us is said in one line, and not one an action."""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm_vocabulary import Built, Project
from server_vocabulary import wait_until
from small_engine import SmallEngine, small_engine

ACTIONS = 8


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SmallEngine]:
    with small_engine(tmp_path / "boxes") as made:
        yield made


def many(*first: str) -> list[str]:
    lines = [line for n in range(ACTIONS) for line in (f"remote-echo {n} > o{n}", f">produces o{n}")]
    return [*first, "many:", *lines]


def lines_of(built: Built) -> list[str]:
    """What is said of it, but for the summary's first line and those below."""
    assert built.status == 3, built.stderr
    lines = built.stderr.decode().splitlines()
    return lines[: next(number for number, line in enumerate(lines) if re.match(r"rakefarm: \d+ actions?, ", line))]


def test_a_build(project: Project, engine: SmallEngine) -> None:
    project.rakefile(*many())
    built = project.build("--json", "--engine", engine.url)
    assert built.status == 0, built.stderr
    assert {project.read(f"o{n}") for n in range(ACTIONS)} == {b"%d\n" % n for n in range(ACTIONS)}
    assert {event["host"] for event in built.events() if event["event"] == "action_finished"} == {engine.url}


def test_not_let_in_is_one_line(project: Project, engine: SmallEngine) -> None:
    project.rakefile(*many())
    engine.refuses.set()
    (line,) = lines_of(project.build("--engine", engine.url))
    assert line.startswith(f"rakefarm: error: {engine.url} does not let us in: no token; put a token"), line
    assert line.endswith(" [RF131]")


def test_nobody_there_is_one_line(project: Project) -> None:
    project.rakefile(*many())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"grpc://127.0.0.1:{sock.getsockname()[1]}"
        (line,) = lines_of(project.build("--engine", url))
    assert line.startswith(f"rakefarm: error: {url}: ") and "refused" in line and line.endswith(" [RF130]"), line


def test_no_longer_let_in_is_one_line_and_ends_what_runs(project: Project, engine: SmallEngine) -> None:
    def expire() -> None:
        wait_until(lambda: engine.running, "the sleeper")
        engine.refuses.set()

    project.rakefile(
        "all:", "remote-sleep 60",
        *[line for n in range(ACTIONS) for line in (f"remote-sleep 0.4; echo {n} > o{n}", f">produces o{n}")],
    )  # fmt: skip
    watching = threading.Thread(target=expire)
    watching.start()
    built = project.build("--engine", engine.url, "-j", "2")
    watching.join()
    (line,) = lines_of(built)
    assert line.startswith(f"rakefarm: error: {engine.url} does not let us in: the token has expired; put"), line
    wait_until(lambda: not engine.running, "what ran there to be ended")


def test_with_a_fallback_all_runs_here_and_it_is_said_once(project: Project, engine: SmallEngine) -> None:
    project.rakefile(*many())
    engine.refuses.set()
    built = project.build("--engine", engine.url, "--fallback", "local")
    assert built.status == 0, built.stderr
    assert project.read("o7") == b"7\n"
    warnings = [line for line in built.stderr.decode().splitlines() if line.startswith("rakefarm: warning:")]
    assert len(warnings) == 1 and f"{engine.url} left out: does not let us in: no token" in warnings[0], built.stderr


def test_hosts_that_are_named_come_before_a_files_engine(project: Project, engine: SmallEngine) -> None:
    project.rakefile(*many())
    (project.scratch / "config/rakefarm").mkdir(parents=True)
    (project.scratch / "config/rakefarm/client.toml").write_text(f'[engine]\nurl = "{engine.url}"\n')
    assert project.build("--hosts", "local").status == 0
    assert project.build(env={"RAKEFARM_HOSTS": "local"}).status == 0
    assert not engine.asked
    assert project.build().status == 0
    assert len(engine.asked) == ACTIONS
    assert project.build(env={"RAKEFARM_HOSTS": "local", "RAKEFARM_ENGINE": engine.url}).status == 0
    assert len(engine.asked) == 2 * ACTIONS
