"""Builds by BuildGrid onto rakeservers that have joined it: everything real, on loopback."""

import contextlib
import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from engine_vocabulary import MakeEngine, StartWorkers, lua_sources
from farm_vocabulary import Built, Project
from parts import BuildGrid
from server_vocabulary import Server, StartServer, is_alive, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine"), pytest.mark.timeout(600)]
COMPILES = 50


@pytest.fixture
def engine(make_engine: MakeEngine) -> BuildGrid:
    return make_engine()


def fifty_compiles(project: Project, lua: Path) -> list[str]:
    """Lua's sources, at two levels of optimization; answers the objects' names."""
    for source in [*lua.glob("*.c"), *lua.glob("*.h")]:
        project.write(source.name, source.read_bytes())
    headers = " ".join(sorted(each.name for each in lua.glob("*.h")))
    lines = ["compile:"]
    objects = []
    for level in ("-O1", "-O2"):
        for source in lua_sources(lua):
            if len(objects) == COMPILES:
                break
            made = f"{source[:-2]}{level}.o"
            objects.append(made)
            lines += [f"remote-cc -std=gnu99 -DLUA_USE_LINUX {level} -c {source} -o {made}"]
            lines += [f">requires {source} {headers}", f">produces {made}", ">repeatable"]
    assert len(objects) == COMPILES
    project.rakefile(*lines)
    return objects


def outputs(project: Project, names: list[str]) -> dict[str, bytes]:
    made = {name: project.read(name) for name in names}
    for name in names:
        (project.path / name).unlink()
    return made


def told(built: Built) -> Counter[tuple[object, ...]]:
    """What of a build's events is the same wherever it ran."""
    wanted = ("set_started", "action_queued", "action_output", "action_finished", "build_finished")
    fields = ("event", "set_name", "line", "command", "action", "outcome", "exit_status", "outputs", "stdout", "stderr")
    return Counter(
        tuple(str(event.get(field)) for field in fields) for event in built.events() if event["event"] in wanted
    )


def test_fifty_compiles_are_byte_identical_and_then_all_cached(
    engine: BuildGrid, project: Project, start_workers: StartWorkers, lua: Path
) -> None:
    start_workers(engine, 2)
    objects = fifty_compiles(project, lua)
    here = project.build("--json", "--hosts", "local")
    assert here.status == 0
    at_home = outputs(project, objects)
    first = project.build("--json", "--engine", engine.url)
    assert first.status == 0, first.stderr
    assert outputs(project, objects) == at_home
    ran = [event for event in first.events() if event["event"] == "action_finished"]
    assert [event["detail"] for event in ran] == ["exit status 0"] * COMPILES, "nothing of it was there before"
    second = project.build("--json", "--engine", engine.url)
    assert outputs(project, objects) == at_home
    details = [event["detail"] for event in second.events() if event["event"] == "action_finished"]
    assert details == ["exit status 0, of an earlier run"] * COMPILES


MIXED = (
    "make:", "remote-cat one two > both && echo said && echo also >&2", ">requires one two", ">produces both",
    "remote-mkdir -p made/of && echo x > made/of/it && cp one made/copy", ">requires one",
    "use:", "remote-wc -c both made/of/it", ">requires both made/of/it", "test -s both",
)  # fmt: skip
FAILING = ("fail:", "remote-echo no >&2; exit 3", "remote-true", "after:", "remote-true")


@pytest.mark.parametrize(("lines", "status"), [(MIXED, 0), (FAILING, 1)])
def test_a_rakefile_means_the_same_direct_and_by_an_engine(
    lines: tuple[str, ...],
    status: int,
    engine: BuildGrid,
    project: Project,
    start_workers: StartWorkers,
) -> None:
    worker, _ = start_workers(engine, 2)
    project.write("one", "1\n")
    project.write("two", "2\n")
    project.rakefile(*lines)
    builds = []
    made = []
    for options in (["--hosts", f"{worker.host}:{worker.port}"], ["--hosts", "local"], ["--engine", engine.url]):
        builds.append(project.build("--json", *options))
        names = sorted(project.made() - {"one", "two"})
        made.append(outputs(project, names))
    assert [built.status for built in builds] == [status] * 3
    assert made[0] == made[1] == made[2]
    assert told(builds[0]) == told(builds[1]) == told(builds[2])


def test_a_worker_that_is_killed_in_mid_action_is_made_good_by_another(
    engine: BuildGrid,
    project: Project,
    start_workers: StartWorkers,
    start_server: StartServer,
    tmp_path: Path,
) -> None:
    (first,) = start_workers(engine, 1)
    project.rakefile("one:", "remote-sleep 3; echo done > out", ">produces out")
    client = project.start("--engine", engine.url)
    client.wait_for("action_phase", phase="running")
    start_workers(engine, 1)
    first.process.send_signal(signal.SIGKILL)
    assert client.end().status == 0
    assert project.read("out") == b"done\n"
    assert first.directories(), "a killed server tidies nothing up"
    start_server("--slots", "1", scratch=tmp_path / "server-0")
    left = [path for each in first.directories() for path in each.iterdir() if path.name.startswith("server-")]
    assert len(left) == 1, "the next one does, at its start"


def joined_process(worker: Server) -> int:
    """The one of a server's processes that serves the engine: no other has loaded gRPC."""
    for pid in worker.worker_pids():
        with contextlib.suppress(OSError):  # it may end just now
            if "cygrpc" in Path(f"/proc/{pid}/maps").read_text():
                return pid
    return 0


def test_a_joined_process_that_can_have_no_executors_any_more_is_replaced_and_the_build_goes_on(
    engine: BuildGrid, project: Project, start_workers: StartWorkers
) -> None:
    (worker,) = start_workers(engine, 1)
    project.rakefile(
        "many:", *[line for n in range(6) for line in (f"remote-sleep 1; echo {n} > o{n}", f">produces o{n}")]
    )
    client = project.start("--engine", engine.url)
    client.wait_for("action_phase", 2, phase="running")
    first = joined_process(worker)
    assert first
    for nursery in psutil.Process(first).children():
        nursery.kill()
    wait_until(lambda: joined_process(worker) not in (0, first), "another process that serves the engine")
    wait_until(lambda: not is_alive(first), "the first one gone")
    built = client.end()
    assert built.status == 0, built.stderr
    assert {project.read(f"o{n}") for n in range(6)} == {b"%d\n" % n for n in range(6)}
    assert "the process that starts executors is dead" in worker.log()
    assert "Traceback" not in worker.log()


def test_a_scheduler_that_is_killed_and_comes_back_loses_nothing(
    engine: BuildGrid, project: Project, start_workers: StartWorkers
) -> None:
    start_workers(engine, 2)
    project.rakefile(
        "many:", *[line for n in range(12) for line in (f"remote-sleep 1; echo {n} > out{n}", f">produces out{n}")]
    )
    client = project.start("--engine", engine.url)
    client.wait_for("action_finished", 2)
    engine.kill()
    time.sleep(2)  # what a restart takes: nothing is waited for here
    engine.start()
    built = client.end()
    assert built.status == 0, built.stderr
    assert {project.read(f"out{n}") for n in range(12)} == {b"%d\n" % n for n in range(12)}


def test_nothing_runs_at_the_workers_after_an_interrupt(
    engine: BuildGrid, project: Project, start_workers: StartWorkers
) -> None:
    start_workers(engine, 2)
    time_s = f"7{os.getpid()}."
    project.rakefile("wait:", *[f"remote-sleep {time_s}{n}" for n in range(6)])
    client = project.start("--engine", engine.url)
    client.wait_for("action_phase", 2, phase="running")
    wait_until(lambda: sleepers(time_s), "a sleeper")
    client.process.send_signal(signal.SIGINT)
    assert client.end().status == 130
    deadline = time.monotonic() + 6
    while sleepers(time_s):
        assert time.monotonic() < deadline, "it still runs after 6 s"
        time.sleep(0.1)


def sleepers(time_s: str) -> list[int]:
    """Processes that sleep for a time which is written so."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(words) > 1 and words[0] == b"sleep" and words[1].startswith(time_s.encode()):
                found.append(int(name))
    return found


def test_a_worker_that_drains_ends_what_it_runs(
    engine: BuildGrid, project: Project, start_workers: StartWorkers
) -> None:
    (worker,) = start_workers(engine, 1)
    time_s = f"2.0{os.getpid()}"
    project.rakefile("one:", f"remote-sleep {time_s}; echo done > out", ">produces out")
    client = project.start("--engine", engine.url)
    wait_until(lambda: sleepers(time_s), "a sleeper")
    worker.process.send_signal(signal.SIGTERM)
    assert client.end().status == 0
    assert worker.process.wait(30) == 0
