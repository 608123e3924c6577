"""make with `rakefarm cc`, by BuildGrid, on rakeservers that have joined it: everything real, on loopback."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from calls_vocabulary import SLOW, SLOWLY, Calls, open_calls
from engine_vocabulary import MakeEngine, StartWorkers, lua_sources
from farm_vocabulary import commands_on
from server_vocabulary import StartServer, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine"), pytest.mark.timeout(600)]
MAKEFILE = """\
SOURCES := {sources}
all: $(SOURCES:.c=.o)
%.o: %.c
\t$(CC) -g -O2 -Wall -std=gnu99 -DLUA_USE_LINUX -MMD -c $< -o $@
"""
MAKE_S = 240


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Calls]:
    with open_calls(tmp_path) as made:
        yield made


def make(calls: Calls, compiler: str, **env: str) -> dict[str, bytes]:
    """Build all; what was made, which is taken away again."""
    done = subprocess.run(
        ["make", "-j4", f"CC={compiler}"],
        cwd=calls.path,
        env=calls.environment(env),
        capture_output=True,
        timeout=MAKE_S,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    made = {path.name: path.read_bytes() for path in calls.path.iterdir() if path.suffix in (".o", ".d")}
    for name in made:
        (calls.path / name).unlink()
    return made


def test_make_compiles_by_the_engine_what_it_compiles_here(
    make_engine: MakeEngine, start_server: StartServer, calls: Calls, lua: Path
) -> None:
    engine = make_engine()
    for _ in range(2):  # as a lab has them: as confined as the machine allows
        start_server("--slots", "2", "--join", engine.url, env={"RAKEFARM_ISOLATION": "auto"})
    for source in [*lua.glob("*.c"), *lua.glob("*.h")]:
        shutil.copy(source, calls.path)
    sources = lua_sources(lua)
    (calls.path / "Makefile").write_text(MAKEFILE.format(sources=" ".join(sources)))
    here = make(calls, "gcc")
    assert len(here) == 2 * len(sources)
    calls.extra |= {"RAKEFARM_ENGINE": engine.url, "RAKEFARM_RESULT_CACHE_SIZE": "100M"}
    ours = f"{sys.executable} -m rakefarm.cc gcc"
    assert make(calls, ours, RAKEFARM_RESULT_CACHE=str(calls.scratch / "one")) == here
    counts = calls.statistics()
    assert (counts["compiled"], counts["served"], counts["run"]) == (len(sources), 0, 0), counts
    # Somebody else, with the same sources in the same place: all of it is in the engine's cache.
    assert make(calls, ours, RAKEFARM_RESULT_CACHE=str(calls.scratch / "two")) == here
    counts = calls.statistics()
    assert (counts["compiled"], counts["served"], counts["run"]) == (len(sources), len(sources), 0), counts


def test_a_killed_call_ends_at_the_worker(make_engine: MakeEngine, start_workers: StartWorkers, calls: Calls) -> None:
    engine = make_engine()
    (worker,) = start_workers(engine, 1)
    calls.extra["RAKEFARM_ENGINE"] = engine.url
    calls.write("slow.cc", SLOW)
    call = calls.start("g++", *SLOWLY, "-c", "slow.cc")
    try:
        wait_until(lambda: commands_on(worker), "the compile on the worker")
    finally:
        call.send_signal(signal.SIGKILL)
        call.communicate()
    wait_until(lambda: not commands_on(worker), "the compiler there to be gone", 10)
    assert not os.path.exists(calls.path / "slow.o")


def test_a_scheduler_that_is_killed_costs_calls_their_place_and_nothing_else(
    make_engine: MakeEngine, start_workers: StartWorkers, calls: Calls
) -> None:
    engine = make_engine()
    start_workers(engine, 1)
    calls.extra["RAKEFARM_ENGINE"] = engine.url
    calls.write("a.c", "int a;\n")
    calls.check_same("gcc", "-c", "a.c")
    engine.kill()
    status, _, err = calls.call("gcc", "-c", "a.c")
    assert status == 0 and err.count(b"\n") == 1 and b"here: no server of the farm could run it" in err, err
    engine.start()

    def goes_there_again() -> bool:
        assert calls.call("gcc", "-c", "a.c")[0] == 0
        return calls.statistics()["compiled"] == 2

    wait_until(goes_there_again, "a compile at the engine")
