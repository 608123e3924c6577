"""What an engine costs an action: by BuildGrid on ours, by BuildGrid on a plain worker, and by our own protocol.

    python benchmarks/engine.py [--rounds N] [--queued N]

PostgreSQL and BuildGrid are started here, as tests/engine starts them, and stay for the whole run with both workers
joined; a platform property says which of the two a build is for. Each round has the same no-ops, and then the same
compilations, done one at a time by each of the three, in an order that turns round. An action's overhead is its time
less its command's own, and p50 and p95 are those of all rounds; how ours stands to the plain worker is the median of
the rounds' differences. In the end as many no-ops as are asked for are queued at one time.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from farm import ENVIRONMENT, server

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engine"))

import pytest  # noqa: E402
from parts import BuildGrid, PostgreSQL, buildgrid_program  # noqa: E402 # the tests' own parts, for just the same start

TALLY = ROOT / "examples" / "tally"
NO_OPS = 20
QUEUED_JOBS = "64"
SLOTS = 2
BUILD_S = 600.0
OURS, PLAIN, DIRECT = "ours, by the engine", "plain worker, by the engine", "ours, direct"

Way = tuple[str, list[str], str]
"""A name, the options of a build that goes this way, and its client.toml."""


def write_no_ops(directory: Path, count: int) -> None:
    """Commands that do nothing, each another one."""
    lines = [f"\tremote-true {number} {time.time_ns()}\n" for number in range(count)]
    (directory / "Rakefile").write_text("all:\n" + "".join(lines))


def write_compiles(directory: Path) -> None:
    """The sources of the example, all of them in one set."""
    shutil.copytree(TALLY / "src", directory / "src", dirs_exist_ok=True)
    shutil.copytree(TALLY / "include", directory / "include", dirs_exist_ok=True)
    lines = ["compile:\n"]
    for source in sorted(path.name for path in (TALLY / "src").glob("*.c")):
        made = source.removesuffix(".c") + ".o"
        lines.append(f"\tremote-cc -std=c99 -O0 -Iinclude -c src/{source} -o {made}\n")
        lines.append(f"\t\trequires src/{source} include\n\t\tproduces {made}\n")
    (directory / "Rakefile").write_text("".join(lines))


def build(directory: Path, way: Way, jobs: str) -> tuple[float, list[dict[str, object]]]:
    """Seconds, and the ends of the actions."""
    _, options, settings = way
    configuration = directory / "client.toml"
    configuration.write_text(settings)
    words = [sys.executable, "-m", "rakefarm.client", "--json", "--config", str(configuration), "-j", jobs, *options]
    began = time.monotonic()
    done = subprocess.run(words, cwd=directory, capture_output=True, env=ENVIRONMENT, timeout=BUILD_S)
    took = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{way[0]}: {done.stderr.decode()[-2000:]}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return took, [event for event in events if event["event"] == "action_finished"]


def overheads(ends: list[dict[str, object]]) -> list[float]:
    """What each action took beside its command, in milliseconds."""
    return [(float(str(end["elapsed_s"])) - float(str(end["ran_s"]))) * 1e3 for end in ends]


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[18]


@contextlib.contextmanager
def plain_worker(engine: BuildGrid, python: Path) -> Iterator[None]:
    """With as many bots as ours has."""
    words = [str(python), str(ROOT / "benchmarks" / "plain_worker.py"), f"grpc://127.0.0.1:{engine.port}", str(SLOTS)]
    words += ["OSFamily=linux", f"ISA={_isa()}", "tool=plain", *[f"compiler={each}" for each in _compilers()]]
    process = subprocess.Popen(words, cwd="/")
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _isa() -> str:
    from rakefarm.engine.properties import of_machine

    return dict(of_machine())["ISA"]


def _compilers() -> tuple[str, ...]:
    from rakefarm.engine.properties import Identities

    return Identities({"PATH": os.environ["PATH"]}).all()


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[list[Way]]:
    """All parts; answers the three ways."""
    program = buildgrid_program(directory)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rakefarm-postgresql-")))
        os.chmod(place, 0o755)
        database = PostgreSQL(place)
        stack.callback(database.stop)
        engine = BuildGrid(program, directory / "engine", database.make_database("benchmark"))
        stack.callback(engine.stop)
        configuration = directory / "server.toml"
        configuration.write_text('[engine]\nproperties = ["tool=ours"]\n')
        options = ["--slots", str(SLOTS), "--join", engine.url, "--config", str(configuration)]
        joined = stack.enter_context(server(*options))
        stack.enter_context(plain_worker(engine, program.parent / "python"))
        tool = '[engine]\nproperties = ["tool={}"]\n'
        yield [
            (OURS, ["--engine", engine.url], tool.format("ours")),
            (PLAIN, ["--engine", engine.url], tool.format("plain")),
            (DIRECT, ["--hosts", joined.address], ""),
        ]


def measure(work: str, directory: Path, ways: list[Way], rounds: int, write: Callable[[], None]) -> None:
    """Rounds of the same work one at a time; prints a table."""
    all_of: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    medians: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    highs: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    for number in range(rounds + 1):
        for way in ways if number % 2 else ways[::-1]:
            write()
            _, ends = build(directory, way, "1")
            if number:  # the first round fills stores
                found = overheads(ends)
                all_of[way[0]] += found
                medians[way[0]].append(statistics.median(found))
                highs[way[0]].append(p95(found))
    print(f"{work}, one at a time, beside the command's own time; {rounds} rounds")
    for name, values in all_of.items():
        print(f"  {name:28} p50 {statistics.median(values):7.1f} ms   p95 {p95(values):7.1f} ms   of {len(values)}")
    for kind, table in (("p50", medians), ("p95", highs)):
        pairs = list(zip(table[OURS], table[PLAIN], strict=True))
        more = statistics.median([ours - plain for ours, plain in pairs])
        ratio = statistics.median([ours / plain for ours, plain in pairs])
        print(f"  ours over the plain worker, {kind}, median of the rounds: {more:+.1f} ms, × {ratio:.2f}")


def main() -> int:
    """Answers the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="how often each is measured (default: 11)")
    parser.add_argument("--queued", type=int, default=1000, help="no-ops that are queued at one time (default: 1000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rakefarm-bench-") as name:
        directory, project = Path(name), Path(name) / "project"
        project.mkdir()
        for variable in ("CACHE", "STATE", "CONFIG"):
            ENVIRONMENT[f"XDG_{variable}_HOME"] = str(directory / variable.lower())
        try:
            with opened(directory) as ways:
                measure("no-ops", project, ways, options.rounds, lambda: write_no_ops(project, NO_OPS))
                measure("compiles", project, ways, options.rounds, lambda: write_compiles(project))
                for way in ways:
                    write_no_ops(project, options.queued)
                    took, ends = build(project, way, QUEUED_JOBS)
                    each = took / len(ends) * 1e3
                    print(f"{len(ends)} queued no-ops, {way[0]}: {took:.1f} s, {each:.1f} ms each")
        except pytest.skip.Exception as reason:
            print(f"not measured: {reason}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
