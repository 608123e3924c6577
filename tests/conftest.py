"""Fixtures of every test that needs a real server; what they are made of is in `server_vocabulary`."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
from server_vocabulary import Client, Connect, Gate, Server, StartServer, open_server, open_to_commands

# How long one example takes says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Where root runs the tests, commands have another uid, and must be able to pass through the directories of tests:
    these then stand in a place of their own, which another test run does not lock again."""
    if os.geteuid() == 0 and not config.option.basetemp and not hasattr(config, "workerinput"):
        base = tempfile.mkdtemp(prefix="rakefarm-tests-")
        config.option.basetemp = base
        config.add_cleanup(lambda: shutil.rmtree(base, ignore_errors=True))


@pytest.fixture(autouse=True)
def _commands_may_use_the_directory(request: pytest.FixtureRequest) -> None:
    """Of a test with a server: its commands leave marks there, and have another uid where root runs the tests."""
    if "tmp_path" in request.fixturenames and {"start_server", "project", "server"} & set(request.fixturenames):
        open_to_commands(request.getfixturevalue("tmp_path"))


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """`start_server(*options, env=…)` starts a server; in the end all are ended, and must have left nothing."""
    started: list[Server] = []

    def start(*options: str, env: Mapping[str, str] | None = None, scratch: Path | None = None) -> Server:
        place = scratch or tmp_path / f"server-{len(started)}"
        place.mkdir(exist_ok=True)
        started.append(open_server(place, *options, env=env))
        return started[-1]

    with contextlib.ExitStack() as stopping:
        yield start
        for server in started:
            stopping.callback(server.stop)
    for server in started:
        server.wait_gone()
    if started and started[-1].process.returncode >= 0:  # one that was killed leaves its directory to the next
        assert [server.directories() for server in started] == [[]] * len(started)


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """A server with two slots."""
    return start_server("--slots", "2")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(server)` answers a client that has introduced itself; it is closed in the end."""
    with contextlib.ExitStack() as clients:
        yield lambda server: clients.enter_context(Client(server.host, server.port)).introduce()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Something for a command to wait at; opened in the end."""
    made = Gate(tmp_path)
    yield made
    made.open()
