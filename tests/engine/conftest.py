"""The real parts, once for all tests of a run; and workers, of which each test has its own."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parts import BuildGrid, PostgreSQL, buildgrid_program

MakeEngine = Callable[..., BuildGrid]


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
