"""Fixtures of whole builds: a project, servers of one test, and servers that a module's tests share."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from calls_vocabulary import Calls, open_calls
from farm_vocabulary import Project, commands_on, wait_until_idle
from server_vocabulary import Server, StartServer, open_server, wait_until


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty project; nothing of a client is left in the end."""
    made = Project(tmp_path / "client")
    yield made
    made.check_nothing_is_left()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """`start_server(*options)` starts a server; in the end all are idle, are ended, and have left nothing."""
    numbers = itertools.count()
    with contextlib.ExitStack() as servers:

        def start(*options: str, opener: StartServer = open_server, scratch: Path | None = None) -> Server:
            place = scratch or tmp_path / f"server-{next(numbers)}"
            place.mkdir(exist_ok=True)
            server = opener(place, *options)
            servers.callback(_end, server)
            return server

        yield start


@pytest.fixture
def two_servers(start_server: StartServer) -> tuple[Server, Server]:
    """Two servers with two slots each."""
    return start_server("--slots", "2"), start_server("--slots", "2")


def _end(server: Server) -> None:
    alive = server.process.poll() is None
    if alive:
        wait_until_idle(server)
    server.end()
    wait_until(lambda: not commands_on(server), "all commands gone")
    if alive:
        assert server.directories() == []
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ...]]:
    """Three servers with two slots each, for all tests of a module."""
    with contextlib.ExitStack() as servers:
        started = []
        for _ in range(3):
            server = open_server(tmp_path_factory.mktemp("server"), "--slots", "2")
            servers.callback(_end, server)
            started.append(server)
        yield tuple(started)


@pytest.fixture
def farm(shared_servers: tuple[Server, ...]) -> Iterator[tuple[Server, ...]]:
    """The module's servers; each is idle again after the test."""
    yield shared_servers
    for server in shared_servers:
        wait_until_idle(server)


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Calls]:
    """A directory without hosts; the helper is ended in the end."""
    with open_calls(tmp_path) as made:
        yield made
