"""Builds as people run them: outputs as of a local build, byte for byte, and every option that steers them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from farm_vocabulary import Event, Project, commands_on, outputs_of, places_of
from server_vocabulary import ROOT, Server, open_to_commands

from rakefarm import events
from rakefarm.client.rakefile import read_rakefile

Farm = tuple[Server, ...]


# --- the examples ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built_here(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, tuple[bytes, bool]]]:
    """What a plain shell makes of an example: each new file with its content and whether it is executable."""
    known: dict[str, dict[str, tuple[bytes, bool]]] = {}

    def make(name: str) -> dict[str, tuple[bytes, bool]]:
        if name not in known:
            project = Project(tmp_path_factory.mktemp("here"))
            copy_example(project, name)
            before = project.names()
            # A file that is compiled under another directory is compiled here by the name the action gives it.
            for action_set in read_rakefile(str(project.path / "Rakefile")).sets:
                for action in action_set.actions:
                    subprocess.run(action.command, shell=True, cwd=project.path, check=True, capture_output=True)
            known[name] = contents(project, before)
        return known[name]

    return make


def copy_example(project: Project, name: str, keep_hosts: bool = True) -> None:
    """An example, compiled without optimising, which takes half the time."""
    project.copy_example(name)
    lines = project.read("Rakefile").replace(b" -O2 ", b" -O0 ").splitlines(keepends=True)
    dropped = () if keep_hosts else (b"HOSTS", b"PORT")
    project.write("Rakefile", b"".join(line for line in lines if not line.startswith(dropped)))


def contents(project: Project, before: set[str]) -> dict[str, tuple[bytes, bool]]:
    new = sorted(project.names() - before)
    return {name: (project.read(name), os.access(project.path / name, os.X_OK)) for name in new}


@pytest.mark.parametrize("example", ["hello", "tally"])
@pytest.mark.parametrize("servers", [0, 1, 3])
def test_an_example_is_built_as_it_is_here(
    project: Project,
    farm: Farm,
    built_here: Callable[[str], dict[str, tuple[bytes, bool]]],
    example: str,
    servers: int,
) -> None:
    copy_example(project, example, keep_hosts=servers > 0)
    before = project.names()
    built = project.build(hosts=farm[:servers])
    assert built.status == 0, built.stderr
    assert contents(project, before) == built_here(example)
    assert built.says("an embedded farm runs on this machine's cores") is (servers == 0)


def test_the_farm_of_three_that_one_command_starts_builds_it_too(
    project: Project, built_here: Callable[[str], dict[str, tuple[bytes, bool]]]
) -> None:
    """`configs/three-on-loopback.py`, as the README has people start it; it ends with its standard input."""
    copy_example(project, "tally", keep_hosts=False)
    before = project.names()
    script = subprocess.Popen(
        [sys.executable, str(ROOT / "configs/three-on-loopback.py"), "--slots", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=project.environment({}),
        text=True,
    )
    with script:
        assert script.stdin and script.stdout
        hosts = script.stdout.readline().removeprefix("HOSTS =").split()
        assert len(hosts) == 3
        built = project.build("--json", hosts=hosts)
        script.stdin.close()
        assert script.wait(30) == 0
    assert built.status == 0, built.stderr
    assert contents(project, before) == built_here("tally")
    assert set(places_of(built.events())) == {*hosts, "local"}, "every server had its part"


# --- exit statuses --------------------------------------------------------------------------------------


def test_all_well_is_0(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "remote-true", "true")
    built = project.build(hosts=farm)
    assert (built.status, built.stdout) == (0, b"")
    assert built.says("2 actions in")


FAILURES = {
    "exit 3": "exit status 3",
    "kill -9 $$": "killed by signal 9 (SIGKILL)",
    "kill -15 $$": "killed by signal 15 (SIGTERM)",
    "no-such-program": "exit status 127",
    "cat < /none/such": "exit status ",
}


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_a_failed_action_is_1(project: Project, farm: Farm, prefix: str) -> None:
    project.rakefile("a:", *(prefix + command for command in FAILURES))
    built = project.build(hosts=farm[:1])
    assert built.status == 1
    for line, (command, detail) in enumerate(FAILURES.items(), 2):
        assert built.says(f"line {line}: {command}: {detail}")


def test_a_wrong_use_is_2(project: Project) -> None:
    project.rakefile("a:", "touch ran")
    built = project.build("-j", "0")
    assert built.status == 2
    assert built.stderr == b"rakefarm: error: -j 0: not a whole number from 1 to 4096 [RF002]\n"
    assert project.made() == set()


def test_a_farm_that_cannot_run_it_is_3(project: Project) -> None:
    project.rakefile("a:", "remote-true", "touch local")
    built = project.build(hosts=["127.0.0.1:1"])
    assert built.status == 3
    assert built.says("127.0.0.1:1: connection refused")
    assert project.made() == {"local"}


def test_a_failed_action_counts_more_than_one_not_run(project: Project) -> None:
    project.rakefile("a:", "remote-true", "exit 1")
    assert project.build(hosts=["127.0.0.1:1"]).status == 1


def test_a_need_that_no_host_has_is_3(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "remote-true", "> needs license=acme", "remote-true", "> needs tool=sh cpu=1 mem=1M")
    built = project.build("--json", hosts=farm)
    assert built.status == 3
    asked = [event for event in built.events() if event["event"] == "quote_received" and event["action"] == 1]
    assert len(asked) == len(farm)  # asking again can't help
    for server in farm:
        assert built.says(f"{server.address}: license")
    assert built.says("2 actions, 1 not run") or built.says("1 action, 1 not run")


# --- sets, failures, -k, -n, -C, -j ---------------------------------------------------------------------


def test_siblings_finish_all_failures_are_listed_and_later_sets_wait(project: Project, farm: Farm) -> None:
    project.rakefile(
        "one:",
        "remote-exit 3",
        "remote-sleep 0.3; touch late",
        "exit 4",
        "remote-cat none",
        "> requires none",
        "sleep 0.3; touch local",
        "two:",
        "touch later",
    )
    built = project.build(hosts=farm)
    assert built.status == 1
    for detail in ("exit status 3", "exit status 4", "missing required file none"):
        assert built.says(detail)
    assert built.says("5 actions, 3 failed, 1 not started")
    assert project.made() == {"late", "local"}


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_the_time_that_a_command_waited_is_not_counted_as_its_own(project: Project, farm: Farm, prefix: str) -> None:
    project.rakefile("a:", *[f"{prefix}sleep 0.4"] * 4)
    built = project.build("--json", "-j", "4", hosts=[f"{farm[0].address}"])
    finished = [event for event in built.events() if event["event"] == "action_finished"]
    assert all(0.4 <= event["ran_s"] < 0.75 for event in finished), finished  # type: ignore[operator]
    assert all(event["ran_s"] <= event["elapsed_s"] for event in finished)  # type: ignore[operator]


def test_keep_going_starts_later_sets(project: Project, farm: Farm) -> None:
    project.rakefile("one:", "remote-exit 3", "two:", "remote-touch later", "three:", "exit 1")
    built = project.build("-k", hosts=farm)
    assert built.status == 1
    assert project.made() == {"later"}
    assert built.says("3 actions, 2 failed")


def test_a_later_set_sees_what_an_earlier_one_made(project: Project, farm: Farm) -> None:
    project.rakefile(
        "one:", "remote-echo a > a", "echo b > b", "two:", "remote-cat a b > c", "> requires a b", "three:", "cat c"
    )
    built = project.build(hosts=farm)
    assert (built.status, built.stdout) == (0, b"a\nb\n")


def test_a_dry_run_shows_plan_and_prices_and_runs_nothing(project: Project, farm: Farm) -> None:
    project.write("in")
    project.rakefile("one:", "remote-touch a", "> requires in", "touch b", "two:", "remote-touch c", "> requires a")
    built = project.build("-n", hosts=farm)
    assert built.status == 0
    text = built.stdout.decode()
    assert [line for line in text.splitlines() if line.endswith(":")] == ["one:", "two:"]
    assert text.count("price") == 2 * len(farm)
    for command in ("touch a", "touch b", "touch c"):
        assert command in text
    assert "missing required file a (an earlier set may make it)" in text
    assert project.made() == {"in"}


def test_a_dry_run_without_a_host_asks_an_embedded_farm(project: Project) -> None:
    project.rakefile("one:", "remote-touch a")
    built = project.build("-n")
    assert built.status == 0
    assert b"price" in built.stdout
    assert project.made() == set()


def test_a_dry_run_of_what_no_server_can_run_ends_as_the_build_would(project: Project, farm: Farm) -> None:
    project.rakefile("one:", "remote-touch a", "remote-touch b", "remote-touch c", "touch d")
    built = project.build("-n", "--hosts", "127.0.0.1:1")
    assert built.status == 3 and b"touch d" in built.stdout
    warning, line = built.stderr.decode().splitlines()
    assert warning.startswith("rakefarm: warning: 127.0.0.1:1 left out: connection refused; is rakeserver running")
    assert line == "rakefarm: error: no server can run line 2 and 2 more: 127.0.0.1:1: connection refused [RF103]"
    assert b"declines" not in built.stdout and b"refused" not in built.stdout, "who is not asked declines nothing"
    project.rakefile("one:", "remote-touch a", "remote-touch b", "> needs gpu")
    built = project.build("-n", hosts=farm)
    assert built.status == 3 and b"needs gpu" in built.stderr and built.stdout.count(b"price") == len(farm)
    project.rakefile("one:", "touch a")
    assert project.build("-n", "--hosts", "127.0.0.1:1").status == 0, "which needs none"


def test_outputs_have_their_directories(project: Project, farm: Farm) -> None:
    project.write("src/a.c", "text")
    project.rakefile(
        "declared:",
        "remote-cat src/a.c > out/deep/a.o", "> requires src/a.c", "> produces out/deep/a.o",
        "undeclared:",
        "remote-cat src/a.c > other/a.o", "> requires src/a.c",
    )  # fmt: skip
    built = project.build(hosts=farm)
    assert built.status == 1 and project.read("out/deep/a.o") == b"text"
    assert built.says("there is no directory other where it ran: declare it, produces other/a.o")


def test_another_directory_and_another_file(project: Project, farm: Farm) -> None:
    project.write("sub/in", "text")
    project.write("sub/other.rake", "a:\n\tremote-cat in > out; pwd\n\t\trequires in\n\techo $PWD\n")
    built = project.build("-C", "sub", "-f", "other.rake", hosts=farm)
    assert built.status == 0
    assert project.read("sub/out") == b"text"
    assert str(project.path / "sub").encode() + b"\n" in built.stdout


def test_paths_are_relative_to_the_working_directory(project: Project, farm: Farm) -> None:
    project.write("in", "text")
    project.write("sub/Rakefile", "a:\n\tremote-cat in > out\n\t\trequires in\n")
    assert project.build("sub/Rakefile", hosts=farm).status == 0
    assert project.made() == {"in", "out", "sub/Rakefile"}


def meeting(place: Path, number: int, count: int) -> str:
    """A command that ends well only when `count` of its like run at one time."""
    seen = f'[ "$(ls {place} | wc -l)" -ge {count} ]'
    return f"touch {place}/{number}; n=0; until {seen}; do n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.05; done"


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_so_many_jobs_run_at_one_time(project: Project, farm: Farm, tmp_path: Path, prefix: str) -> None:
    place = tmp_path / "meeting"
    place.mkdir()
    open_to_commands(place)
    project.rakefile("a:", *(prefix + meeting(place, number, 4) for number in range(4)))
    assert project.build("-j", "4", hosts=farm[:2]).status == 0


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_one_job_runs_at_a_time(project: Project, farm: Farm, tmp_path: Path, prefix: str) -> None:
    alone = f"mkdir {tmp_path}/alone && sleep 0.1 && rmdir {tmp_path}/alone"
    project.rakefile("a:", *[prefix + alone] * 4)
    built = project.build("-j", "1", hosts=farm)
    assert built.status == 0, built.stderr


# --- hosts ----------------------------------------------------------------------------------------------


def hosts_used(project: Project, *options: str, env: dict[str, str] | None = None) -> list[str]:
    built = project.build("--json", *options, env=env)
    assert built.status == 0, built.stderr
    return list(built.events()[0]["hosts"])  # type: ignore[call-overload]


def test_the_option_comes_before_the_variable_before_the_rakefile(project: Project, farm: Farm) -> None:
    option, variable, rakefile = (server.address for server in farm)
    project.write("Rakefile", f"HOSTS = {rakefile}\na:\n\tremote-true\n")
    env = {"RAKEFARM_HOSTS": variable}
    assert hosts_used(project, "--hosts", option, env=env) == [option]
    assert hosts_used(project, env=env) == [variable]
    assert hosts_used(project) == [rakefile]


def test_the_configuration_comes_last(project: Project, farm: Farm, tmp_path: Path) -> None:
    config = tmp_path / "client" / "config" / "rakefarm"
    config.mkdir(parents=True)
    (config / "client.toml").write_text(f'hosts = ["{farm[0].address}", "{farm[1].address}"]\n')
    project.write("Rakefile", "a:\n\tremote-true\n")
    assert hosts_used(project) == [farm[0].address, farm[1].address]
    project.write("Rakefile", f"HOSTS = {farm[2].address}\na:\n\tremote-true\n")
    assert hosts_used(project) == [farm[2].address]


def test_port_is_the_default_of_hosts_that_name_none(project: Project, farm: Farm) -> None:
    project.write("Rakefile", f"HOSTS = 127.0.0.1\nPORT = {farm[0].port}\na:\n\tremote-true\n")
    assert hosts_used(project) == [farm[0].address]


def test_a_host_may_be_named_in_several_ways(project: Project, farm: Farm) -> None:
    project.rakefile("a:", *["remote-true"] * 8)
    listed = f"# comment\n{farm[0].address}/1, {farm[1].address}\t{farm[1].address}"
    built = project.build("--json", env={"RAKEFARM_HOSTS": listed})
    assert built.status == 0
    assert built.events()[0]["hosts"] == [farm[0].address, farm[1].address]


def test_a_build_without_remote_actions_needs_no_host(project: Project) -> None:
    project.rakefile("a:", "touch made")
    built = project.build(hosts=["127.0.0.1:1"])
    assert built.status == 0
    assert b"127.0.0.1:1" not in built.stderr
    assert project.made() == {"made"}


@pytest.mark.parametrize("how", ["option", "variable", "file"])
def test_what_no_server_runs_may_run_here(project: Project, tmp_path: Path, how: str) -> None:
    project.write("src/in", "text")
    project.rakefile("a:", "remote-cat in > out; echo shown; mkdir d; cp src/in d", "> requires src/in")
    env, options = {}, []
    if how == "option":
        options = ["--fallback", "local"]
    elif how == "variable":
        env = {"RAKEFARM_FALLBACK": "local"}
    else:
        (tmp_path / "client.toml").write_text('fallback = "local"\n')
        options = ["--config", str(tmp_path / "client.toml")]
    built = project.build(*options, hosts=["127.0.0.1:1"], env=env)
    assert (built.status, built.stdout) == (0, b"shown\n")
    assert built.says("it runs here instead")
    assert project.made() == {"src/in", "out", "d/in"}
    assert project.read("out") == b"text"


def test_with_fallback_never_nothing_runs_here(project: Project) -> None:
    project.rakefile("a:", "remote-touch out")
    started = time.monotonic()
    assert project.build("--fallback", "never", hosts=["127.0.0.1:1"]).status == 3
    assert time.monotonic() - started < 20
    assert project.made() == set()


def test_a_host_that_is_down_is_told_once_and_the_others_build(project: Project, farm: Farm) -> None:
    project.rakefile("a:", *["remote-true"] * 10, "b:", *["remote-true"] * 10)
    built = project.build(hosts=["127.0.0.1:1", *farm])
    assert built.status == 0
    warnings = [line for line in built.stderr.splitlines() if b"warning" in line and b"127.0.0.1:1 " in line]
    assert len(warnings) == 1


# --- --json ---------------------------------------------------------------------------------------------


def check_events(told: list[Event], actions: int) -> None:
    """Every event is one that is declared, with exactly its fields; and the story is whole."""
    classes = {cls.name: cls for cls in events.Event.__subclasses__()}
    for event in told:
        cls = classes[str(event["event"])]
        assert set(event) == {"schema", "event", "at", *cls.__struct_fields__} - {"at_ns"}
        assert event["schema"] == events.SCHEMA_VERSION
    assert len({event["run_id"] for event in told}) == 1
    times = [event["time_s"] for event in told]
    assert times == sorted(times)  # type: ignore[type-var]
    names = [event["event"] for event in told]
    assert names[0] == "build_started"
    assert names[-1] == "build_finished"
    assert names.count("build_started") == names.count("build_finished") == 1
    for name in ("action_queued", "action_finished"):
        numbers = [event["action"] for event in told if event["event"] == name]
        assert sorted(numbers) == list(range(1, actions + 1))  # type: ignore[type-var]


def test_json_tells_the_whole_build_one_line_an_event(project: Project, farm: Farm) -> None:
    project.rakefile(
        "one:",
        "remote-printf '\\377\\n\\001\\342\\202\\254'; printf err >&2",
        "echo here",
        "remote-touch a",
        "two:",
        "remote-exit 2",
    )
    built = project.build("--json", hosts=farm)
    assert built.status == 1
    assert built.stdout.isascii()
    told = built.events()
    check_events(told, 4)
    assert built.stdout == b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in told)
    output = [event for event in told if event["event"] == "action_output"]
    first = b"".join(str(e["stdout"]).encode("utf-8", "surrogateescape") for e in output if e["action"] == 1)
    assert first == b"\xff\n\x01\xe2\x82\xac"
    assert any(event["stderr"] == "err" for event in output)
    assert outputs_of(told) == {"a"}
    assert len([event for event in told if event["event"] == "host_ready"]) == len(farm)
    assert sorted(places_of(told))[-1] == "local"
    last = told[-1]
    assert (last["exit_status"], last["succeeded"], last["failed"], last["not_started"]) == (1, 3, 1, 0)


def test_json_may_go_to_a_file_beside_everything_else(project: Project, farm: Farm, tmp_path: Path) -> None:
    project.rakefile("one:", "remote-echo out")
    built = project.build(f"--json={tmp_path}/events", hosts=farm)
    assert (built.status, built.stdout) == (0, b"out\n")
    check_events([json.loads(line) for line in (tmp_path / "events").read_bytes().splitlines()], 1)


@pytest.mark.parametrize("option", ["--json", "--js", "--json=-"])
def test_the_word_behind_json_is_the_rakefile(project: Project, option: str) -> None:
    project.write("my.rake", "a:\n\ttrue\n")
    built = project.build(option, "my.rake")
    assert built.status == 0, built.stderr
    check_events(built.events(), 1)
    assert project.read("my.rake") == b"a:\n\ttrue\n"


@pytest.mark.parametrize("named", ["my.rake", "./my.rake", "link"])
def test_json_never_overwrites_the_rakefile(project: Project, named: str) -> None:
    project.write("my.rake", "a:\n\ttrue\n")
    (project.path / "link").symlink_to("my.rake")
    built = project.build(f"--json={named}", "my.rake")
    assert built.status == 2
    (line,) = built.stderr.splitlines()
    assert b"which it would overwrite" in line
    assert project.read("my.rake") == b"a:\n\ttrue\n"


@pytest.mark.parametrize("prefix", ["", "remote-"])
@pytest.mark.parametrize("lines", [0, 1, 8])
def test_a_reader_of_json_that_leaves_ends_the_build(project: Project, farm: Farm, prefix: str, lines: int) -> None:
    """Whichever thread tells of it, and whatever the main thread waits for."""
    project.rakefile("a:", f"{prefix}sleep 0.5; echo", f"{prefix}sleep 600", "sleep 600")
    client = project.start("--json", hosts=farm)
    assert client.process.stdout is not None
    for _ in range(lines):
        client.process.stdout.readline()
    client.process.stdout.close()
    client.process.stdout = None
    built = client.end()
    assert (built.status, built.stderr) == (141, b"")


def test_json_of_a_missing_file_is_complete_too(project: Project, farm: Farm) -> None:
    project.rakefile("one:", "remote-cat none", "> requires none")
    built = project.build("--json", hosts=farm)
    assert built.status == 1
    check_events(built.events(), 1)


# --- what actions write ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_streams_are_bytes_and_go_where_they_belong(project: Project, farm: Farm, prefix: str) -> None:
    every = bytes(range(256)) * 40
    project.write("in", every)
    project.rakefile("a:", f"{prefix}cat in; cat in in >&2", "> requires in")
    built = project.build("--progress", "none", hosts=farm)
    assert built.status == 0
    assert built.stdout == every
    assert built.stderr == every * 2


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_output_without_an_end_of_line_stays_so(project: Project, farm: Farm, prefix: str) -> None:
    project.rakefile("a:", f"{prefix}printf out; printf err >&2")
    built = project.build(hosts=farm)
    assert built.stdout == b"out"
    assert built.stderr.startswith(b"err\nrakefarm: ")


def test_two_large_outputs_are_never_cut_into_each_other(project: Project, farm: Farm) -> None:
    size = 2_000_000
    fill = f"head -c {size} /dev/zero | tr '\\0'"
    kinds = {"A": "remote-", "B": "remote-", "C": ""}
    project.rakefile("a:", *(f"{prefix}{fill} {char}; {fill} {char.lower()} >&2" for char, prefix in kinds.items()))
    built = project.build(hosts=farm)
    assert built.status == 0
    assert len(built.stdout) == size * len(kinds)
    for char in kinds:
        assert char.encode() * size in built.stdout
        assert char.lower().encode() * size in built.stderr


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_standard_input_is_empty(project: Project, farm: Farm, prefix: str) -> None:
    project.rakefile("a:", f"{prefix}wc -c")
    assert project.build(hosts=farm).stdout == b"0\n"


def test_a_failed_actions_output_is_shown(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "remote-echo out; echo err >&2; exit 1")
    built = project.build(hosts=farm)
    assert built.stdout == b"out\n"
    assert built.says("err")


# --- what comes back ------------------------------------------------------------------------------------


def test_every_new_file_comes_back_at_its_place(project: Project, farm: Farm) -> None:
    project.rakefile(
        "a:",
        "remote-echo 1 > one; mkdir -p x/y; echo 2 > x/y/two; : > zero; echo 3 > .hidden; mkdir empty;"
        " ln -s one link; mkfifo pipe",
    )
    assert project.build(hosts=farm).status == 0
    assert project.made() == {"one", "x/y/two", "zero", ".hidden"}
    assert project.read("x/y/two") == b"2\n"
    assert project.read("zero") == b""
    assert not (project.path / "empty").exists()


def test_a_file_edited_in_place_comes_back(project: Project, farm: Farm) -> None:
    for name in ("sed", "append", "src/nested"):
        project.write(name, "before\n")
    project.rakefile(
        "a:",
        "remote-sed -i s/before/AFTER!/ sed && printf more >> append && printf more >> nested",
        "> requires sed append src/nested",
    )
    built = project.build("--json", hosts=farm)
    assert built.status == 0
    assert outputs_of(built.events()) == {"sed", "append", "src/nested"}
    assert project.read("sed") == b"AFTER!\n"
    assert project.read("append") == project.read("src/nested") == b"before\nmore"
    assert project.made() == {"sed", "append", "src/nested"}


def test_what_is_only_touched_or_written_again_does_not(project: Project, farm: Farm) -> None:
    stamps = {}
    for name in ("touched", "moved", "rewritten", "made-executable", "src/nested"):
        path = project.write(name, "same\n")
        stamps[name] = path.stat()
    project.rakefile(
        "a:",
        "remote-touch touched; cp moved x; mv x moved; echo same > rewritten; chmod +x made-executable; touch nested",
        "> requires touched moved rewritten made-executable src/nested",
    )
    built = project.build("--json", hosts=farm)
    assert built.status == 0
    assert outputs_of(built.events()) == set()
    for name, before in stamps.items():
        after = (project.path / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_failed_actions_files_stay_away(project: Project, farm: Farm) -> None:
    project.write("edited", "before")
    project.rakefile("a:", "remote-touch made; echo after > edited; exit 1", "> requires edited")
    assert project.build(hosts=farm).status == 1
    assert project.made() == {"edited"}
    assert project.read("edited") == b"before"


def test_execute_permission_travels_both_ways(project: Project, farm: Farm) -> None:
    project.write("tool", "#!/bin/sh\ncp in plain; cp in program; chmod 755 program; chmod 600 plain\n", 0o755)
    project.write("in", "text", 0o644)
    project.rakefile("a:", "remote-./tool; test -x tool && test ! -x in", "> requires tool in")
    assert project.build(hosts=farm).status == 0
    umask = os.umask(0o022)
    os.umask(umask)
    assert (project.path / "program").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (project.path / "plain").stat().st_mode & 0o777 == 0o666 & ~umask


def test_modification_times_survive(project: Project, farm: Farm) -> None:
    path = project.write("in", "text")
    os.utime(path, ns=(0, 1_234_567_890_123_456_789))
    project.rakefile("a:", "remote-stat -c '%Y %y' in", "> requires in")
    seconds, _, fraction = project.build(hosts=farm, env={"TZ": "UTC"}).stdout.split()[:3]
    assert (seconds, fraction) == (b"1234567890", b"23:31:30.123456789")


def test_three_hundred_inputs_in_one_action(project: Project, farm: Farm) -> None:
    for number in range(300):
        project.write(f"include/part{number % 7}/h{number:03}.h", f"/* {number} */\n")
    project.rakefile("a:", "remote-cat include/*/*.h | sort -k2n > all", "> requires 'include/**/*.h'")
    for _ in range(2):  # the second time the server has them
        assert project.build(hosts=farm[:1]).status == 0
        assert project.read("all") == b"".join(b"/* %d */\n" % number for number in range(300))


NAMES = ["a b.c", "größe.c", "日本.c", os.fsdecode(b"caf\xe9.c"), "a'b.c", "$HOME.c", "-n.c", "[x].c", "a\\b.c"]


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_every_name_is_a_name(project: Project, farm: Farm, prefix: str) -> None:
    for name in NAMES:
        project.write(f"in/{name}", f"content of {name}")
    quoted = " ".join("'" + f"in/{name}".replace("'", "'\\''") + "'" for name in NAMES)
    project.rakefile("a:", f"{prefix}mkdir out; cp in/* out", f"> requires {quoted}")
    built = project.build(hosts=farm)
    assert built.status == 0, built.stderr
    for name in NAMES:
        assert project.read(f"out/{name}") == os.fsencode(f"content of {name}")
    assert len(project.made()) == 2 * len(NAMES)


def test_empty_inputs_are_there(project: Project, farm: Farm) -> None:
    project.write("empty")
    project.rakefile("a:", "remote-test -f empty && test ! -s empty && cp empty copy", "> requires empty")
    assert project.build(hosts=farm).status == 0
    assert project.read("copy") == b""


def test_both_names_of_a_nested_file_work(project: Project, farm: Farm) -> None:
    project.write("src/a.c", "text")
    project.write("lib/x/y.h", "more")
    project.rakefile("a:", "remote-cat a.c src/a.c y.h lib/x/y.h", "> requires ./src/a.c lib/x/y.h")
    assert project.build(hosts=farm).stdout == b"texttextmoremore"


def test_a_file_outside_is_staged_under_its_base_name(project: Project, farm: Farm, tmp_path: Path) -> None:
    (tmp_path / "outside.h").write_text("text")
    project.rakefile("a:", "remote-cat outside.h; find . -type f", f"> requires {tmp_path}/outside.h")
    assert project.build(hosts=farm).stdout == b"text./outside.h\n"


def test_exactly_the_declared_outputs_come_back(project: Project, farm: Farm) -> None:
    project.write("in", "text")
    project.rakefile("a:", "remote-cp in out; touch log tmp", "> requires in", "> produces out d/in", "b:", "true")
    built = project.build(hosts=farm)
    assert built.status == 1
    assert built.says("the declared output 'd/in' was not made")
    assert project.made() == {"in"}
    project.rakefile("a:", "remote-mkdir d; cp in out; cp in d; touch log", "> requires in", "> produces out d/in in")
    assert project.build(hosts=farm).status == 0
    assert project.made() == {"in", "out", "d/in"}


def test_a_declared_local_output_must_be_made(project: Project) -> None:
    project.rakefile("a:", "true", "> produces out")
    built = project.build()
    assert built.status == 1
    assert built.says("the declared output out was not made")


@pytest.mark.parametrize("slow", [0, 1])
def test_of_two_actions_that_make_one_file_the_last_in_the_file_wins(project: Project, farm: Farm, slow: int) -> None:
    waits = ["sleep 0.4; " if number == slow else "" for number in range(2)]
    project.rakefile("a:", *(f"remote-{wait}echo {number} > out" for number, wait in enumerate(waits)))
    built = project.build(hosts=farm)
    assert built.status == 0
    assert project.read("out") == b"1\n"
    assert built.says("two actions of set 'a' make out; the last in the file wins")


def test_an_output_that_cannot_be_written_fails_its_action_alone(project: Project, farm: Farm) -> None:
    (project.path / "taken").mkdir()
    project.rakefile("a:", "remote-touch taken", "remote-touch other")
    built = project.build(hosts=farm)
    assert built.status == 1
    assert built.says("can't write taken: Is a directory")
    assert project.made() == {"other"}


@pytest.mark.parametrize("here", [False, True])
def test_a_name_that_can_not_be_returned_fails_its_action_after_one_run(
    project: Project, farm: Farm, tmp_path: Path, here: bool
) -> None:
    command = f"echo ran >> {tmp_path}/runs; echo out; echo err >&2; touch good \"$(printf 'x\\033y')\""
    project.rakefile("a:", f"remote-{command}")
    built = project.build("--fallback", "local", hosts=["127.0.0.1:1"] if here else farm)
    assert built.status == 1, built.stderr
    assert built.says("failed: set 'a', line 2") and built.says("'x\\x1by' has a control byte")
    assert built.stdout == b"out\n" and b"err\n" in built.stderr
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert project.made() == set()


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_a_command_that_is_too_long_has_failed(project: Project, farm: Farm, prefix: str) -> None:
    project.rakefile("a:", f"{prefix}: {'x' * 200_000}")
    built = project.build("--json", hosts=farm)
    assert built.status == 1
    finished = [event for event in built.events() if event["event"] == "action_finished"]
    assert [event["outcome"] for event in finished] == ["failed"]
    assert "Argument list too long" in str(finished[0]["detail"])
    assert len(places_of(built.events())) == 1


def test_a_link_in_the_project_does_not_lead_outputs_out(project: Project, farm: Farm, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (project.path / "out").symlink_to(outside)
    project.rakefile("a:", "remote-mkdir -p out/deep; touch out/deep/a.o")
    built = project.build(hosts=farm)
    assert built.status == 1
    assert built.says("a link leads out of the working directory")
    assert list(outside.iterdir()) == []


# --- how commands end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_a_time_limit_ends_the_whole_tree(project: Project, farm: Farm, prefix: str) -> None:
    project.rakefile("a:", f"{prefix}sleep 600 & sleep 600", "> timeout 0.3", f"{prefix}true", "> timeout 600")
    started = time.monotonic()
    built = project.build(hosts=farm)
    assert time.monotonic() - started < 20
    assert built.status == 1
    assert built.says("its time limit was up")
    assert built.says("2 actions, 1 failed")
    assert not any(commands_on(server) for server in farm)


BACKGROUND = [
    "sleep 600 &",
    "(sleep 600 &) ;",
    "setsid sleep 600 &",
    "setsid sh -c 'trap \"\" TERM HUP; sleep 600 & sleep 600' &",
]


def test_what_is_left_in_the_background_is_killed(project: Project, farm: Farm) -> None:
    project.rakefile("a:", *(f"remote-{left} echo done > out{n}" for n, left in enumerate(BACKGROUND)))
    started = time.monotonic()
    assert project.build(hosts=farm).status == 0
    assert time.monotonic() - started < 20
    assert project.made() == {f"out{n}" for n in range(len(BACKGROUND))}
    assert not any(commands_on(server) for server in farm)


def test_a_local_background_process_is_killed_too(project: Project) -> None:
    project.rakefile("a:", "sleep 600 & echo done > out")
    assert project.build().status == 0
    assert project.processes() == []


def test_a_sandbox_that_a_command_locked_is_removed(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "remote-mkdir -p d/e; touch d/e/f; chmod 0 d/e d; exit 1", "remote-mkdir d; chmod 500 . d")
    assert project.build(hosts=farm[:1]).status == 1


def test_each_action_has_a_directory_of_its_own(project: Project, farm: Farm) -> None:
    project.rakefile("a:", *['remote-test -z "$(ls -A)" && touch out$$ && sleep 0.05'] * 12)
    assert project.build(hosts=farm).status == 0


def test_only_a_few_variables_reach_a_command(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "remote-env | sort")
    env = {"SECRET_TOKEN": "x", "SOURCE_DATE_EPOCH": "7", "LC_ALL": "C", "LD_PRELOAD": "", "TZ": "UTC"}
    lines = dict(line.split(b"=", 1) for line in project.build(hosts=farm, env=env).stdout.splitlines())
    assert lines.keys() - {b"_", b"OLDPWD", b"SHLVL"} == {
        b"HOME", b"LANG", b"LC_ALL", b"PATH", b"PWD", b"SOURCE_DATE_EPOCH", b"TMPDIR", b"TZ"
    }  # fmt: skip
    assert lines[b"SOURCE_DATE_EPOCH"] == b"7"
