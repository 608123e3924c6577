"""The real parts, once for all tests of a run; and workers, of which each test has its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "system"))

import identical
from engine_vocabulary import MakeEngine, StartWorkers
from farm_vocabulary import Project
from parts import BuildGrid, PostgreSQL, buildgrid_program
from server_vocabulary import Server, StartServer


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BuildGrid's."""
    return buildgrid_program(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def database() -> Iterator[PostgreSQL]:
    """A PostgreSQL of the run's own, which may be another user, to whom pytest's own directories are closed."""
    with tempfile.TemporaryDirectory(prefix="rakefarm-postgresql-") as place:
        os.chmod(place, 0o755)
        made = PostgreSQL(Path(place))
        yield made
        made.stop()


@pytest.fixture
def make_engine(program: Path, database: PostgreSQL, tmp_path: Path) -> Iterator[MakeEngine]:
    """`make_engine(…)` starts a BuildGrid with a database of its own; in the end all are stopped."""
    made: list[BuildGrid] = []

    def make(**options: object) -> BuildGrid:
        name = f"test_{abs(hash(str(tmp_path)))}_{len(made)}"
        place = tmp_path / f"engine-{len(made)}"
        made.append(BuildGrid(program, place, database.make_database(name), **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for engine in made:
        engine.stop()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path)


@pytest.fixture
def start_workers(start_server: StartServer) -> StartWorkers:
    """`start_workers(engine, count)` starts servers that have joined it, with two slots each."""

    def start(engine: BuildGrid, count: int) -> list[Server]:
        return [start_server("--slots", "2", "--join", engine.url) for _ in range(count)]

    return start


@pytest.fixture(scope="session")
def lua(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of Lua 5.4, a project that nobody here wrote; skips where they can't be had."""
    try:
        return Path(identical.fetch(str(tmp_path_factory.mktemp("lua"))))
    except subprocess.CalledProcessError:
        pytest.skip("the source distribution of lupa, with Lua in it, can't be fetched")
