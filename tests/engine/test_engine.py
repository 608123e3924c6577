"""Builds by BuildGrid onto rakeservers that have joined it: everything real, on loopback."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeEngine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from farm_vocabulary import Built, Project
from parts import BuildGrid
from server_vocabulary import ROOT, Server, StartServer, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine"), pytest.mark.timeout(300)]
COMPILES = 50
JOINED_S = 30.0

StartWorkers = Callable[[BuildGrid, int], list[Server]]


@pytest.fixture
def engine(make_engine: MakeEngine) -> BuildGrid:
    return make_engine()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def start_workers(start_server: StartServer) -> StartWorkers:
    def start(engine: BuildGrid, count: int) -> list[Server]:
        return [start_server("--slots", "2", "--join", engine.url) for _ in range(count)]

    return start


def fifty_compiles(project: Project, repeatable: bool = True) -> list[str]:
    """The example's own sources, at two levels of optimization; answers the objects' names."""
    example = ROOT / "examples" / "tally"
    for source in [*example.glob("src/*.c"), *example.glob("include/*.h")]:
        project.write(str(source.relative_to(example)), source.read_bytes())
    headers = " ".join(sorted(f"include/{each.name}" for each in example.glob("include/*.h")))
    lines = ["compile:"]
    objects = []
    for level in ("-O0", "-O2"):
        for source in sorted(each.name for each in example.glob("src/*.c")):
            if len(objects) == COMPILES:
                break
            made = f"{source[:-2]}{level}.o"
            objects.append(made)
            lines += [f"remote-cc -std=c99 {level} -Iinclude -c src/{source} -o {made}"]
            lines += [f">requires src/{source} {headers}", f">produces {made}"]
            lines += [">repeatable"] if repeatable else []
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
    engine: BuildGrid, project: Project, start_workers: StartWorkers
) -> None:
    start_workers(engine, 2)
    objects = fifty_compiles(project)
    here = project.build("--json", "--hosts", "local")
    assert here.status == 0
    at_home = outputs(project, objects)
    first = project.build("--json", "--engine", engine.url)
    assert first.status == 0, first.stderr
    assert outputs(project, objects) == at_home
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


def make_token(secret: str, expires_in_s: float) -> str:
    """A JWT by HMAC-SHA-256 (RFC 7519), made by hand: two parts in base64url, and their signature."""
    import base64
    import hashlib
    import hmac
    import json

    def text(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"sub": "rakefarm", "aud": "BuildGrid", "exp": int(time.time() + expires_in_s)}
    head = text(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + b"." + text(json.dumps(claims).encode())
    return (head + b"." + text(hmac.new(secret.encode(), head, hashlib.sha256).digest())).decode()


def test_only_a_good_token_is_let_in(
    make_engine: MakeEngine, project: Project, start_server: StartServer, tmp_path: Path
) -> None:
    secret = "a secret of these tests, which is long enough for its hash"
    (tmp_path / "secret").write_text(secret)
    rule = f"authorization:\n  method: jwt\n  secret: {tmp_path / 'secret'}\n  algorithm: hs256\n  audience: BuildGrid"
    engine = make_engine(authorization=rule)
    good, wrong, expired = [tmp_path / name for name in ("good", "wrong", "expired")]
    good.write_text(make_token(secret, 600))
    wrong.write_text(make_token("another secret, as long as the first one is, more or less", 600))
    expired.write_text(make_token(secret, -600))
    start_server("--slots", "1", "--join", engine.url, env={"RAKEFARM_ENGINE_TOKEN_FILE": str(good)})
    project.rakefile("one:", "remote-echo done > out", ">produces out")
    for token in (None, wrong, expired):
        env = {"RAKEFARM_ENGINE_TOKEN_FILE": str(token)} if token else {}
        built = project.build("--engine", engine.url, env=env)
        assert built.status == 3, built.stderr
        lines = [line for line in built.stderr.decode().splitlines() if "RF131" in line]
        assert lines and "does not let us in" in lines[0], built.stderr
    built = project.build("--engine", engine.url, env={"RAKEFARM_ENGINE_TOKEN_FILE": str(good)})
    assert built.status == 0, built.stderr
