"""The ledger of whole builds: where it is, what it says of a real farm, and that it survives what builds survive."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from farm_vocabulary import Built, Event, Project, small_disks_work, with_small_disk, without_privilege
from server_vocabulary import Server, wait_until

Farm = tuple[Server, ...]


def path_of(project: Project) -> Path:
    return project.scratch / "home" / ".local" / "state" / "rakefarm" / "ledger.jsonl"


def records_of(project: Project) -> list[Event]:
    return [json.loads(line) for line in path_of(project).read_bytes().splitlines()]


def settings(project: Project, text: str) -> None:
    directory = project.scratch / "config" / "rakefarm"
    directory.mkdir(parents=True)
    (directory / "client.toml").write_text(text)


def calibrated(project: Project, *options: str) -> dict[str, object]:
    found = subprocess.run(
        [sys.executable, "-m", "rakefarm", "calibrate", "--json", *options],
        env=project.environment(),
        check=True,
        capture_output=True,
    )
    assert found.stderr == b""
    numbers = json.loads(found.stdout)
    assert isinstance(numbers, dict)
    return numbers


def test_a_build_is_recorded_and_can_be_calibrated(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "remote-echo 1 > 1", "remote-sleep 0.05", "remote-false", "true")
    built = project.build("--json", "--policy", "lowest", hosts=farm)  # which asks for each action
    assert built.status == 1
    kinds = {
        "build_started", "host_ready", "host_left_out", "host_load", "action_queued", "quote_received", "action_placed",
        "action_retried", "copy_ended", "action_finished", "build_finished",
    }  # fmt: skip
    assert records_of(project) == [event for event in built.events() if event["event"] in kinds]
    finished = {record["action"]: record for record in records_of(project) if record["event"] == "action_finished"}
    assert finished[2]["elapsed_s"] >= 0.05 and finished[1]["outputs"] == ["1"]  # type: ignore[operator]
    numbers = calibrated(project)
    assert numbers["runs"] == 1
    assert numbers["overall"]["actions"] == 2 and numbers["herd"]["awards"] >= 3  # type: ignore[index]
    assert max(term["quotes"] for term in numbers["terms"].values()) == 2  # type: ignore[attr-defined]


def test_builds_at_once_write_one_ledger(project: Project, farm: Farm) -> None:
    project.rakefile("a:", *(f"remote-sleep 0.0{number}" for number in range(9)))
    clients = [project._start((), ["--hosts", farm[0].address], None, project.scratch / "none") for _ in range(3)]
    assert [client.end().status for client in clients] == [0, 0, 0]
    records = records_of(project)
    runs = {record["run_id"] for record in records}
    assert len(runs) == 3
    for run_id in runs:
        events = [record["event"] for record in records if record["run_id"] == run_id]
        assert events[0] == "build_started" and events[-1] == "build_finished" and events.count("action_finished") == 9
    placed = [record for record in records if record["event"] == "action_placed"]
    for award in placed:  # also those of actions that no host was asked for
        assert award["terms"] and sum(award["terms"].values()) == pytest.approx(award["price"])  # type: ignore[attr-defined]
    loads = [record for record in records if record["event"] == "host_load"]
    assert len(loads) >= 3 and all(record["memory_available_bytes"] for record in loads)
    assert calibrated(project)["fairness"]["runs"] == 3  # type: ignore[index]
    assert calibrated(project, "--run", "last")["overall"]["actions"] == 9  # type: ignore[index]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_is_recorded_to_its_end(project: Project, farm: Farm, number: signal.Signals) -> None:
    project.rakefile("a:", *(f"remote-echo {name} > {name}" for name in range(8)), "remote-touch x; sleep 600")
    client = project.start(hosts=farm)
    client.wait_for("action_finished", 8)
    client.process.send_signal(number)
    client.end()
    events = [record["event"] for record in records_of(project)]
    assert events.count("action_queued") == 9 and events.count("action_finished") >= 8
    assert events.count("action_placed") == 9 and events[-1] == "build_finished"


def test_it_can_be_switched_off(project: Project, farm: Farm) -> None:
    settings(project, "ledger = false\n")
    project.rakefile("a:", "remote-true")
    assert project.build(hosts=farm).status == 0
    assert not path_of(project).exists()


def test_hashed_it_names_nothing(project: Project, farm: Farm) -> None:
    settings(project, "ledger_hash = true\n")
    project.rakefile("a:", "remote-touch secret.o", "touch secret.d", "remote-cat secret.c", ">requires secret.c")
    project.build(hosts=farm)
    assert records_of(project)[-1]["event"] == "build_finished"
    assert b"secret" not in path_of(project).read_bytes()


def check_one_warning(built: Built) -> None:
    assert built.status == 0
    warnings = [line for line in built.stderr.splitlines() if b"ledger" in line]
    assert len(warnings) == 1 and warnings[0].startswith(b"rakefarm: warning: no ledger is kept: "), built.stderr


def test_a_home_that_is_read_only_is_one_warning(project: Project, farm: Farm) -> None:
    home = project.scratch / "home"
    home.mkdir()
    home.chmod(0o500)
    project.rakefile("a:", *["remote-true"] * 5)
    check_one_warning(project.build(hosts=farm, prefix=without_privilege()))


@pytest.mark.skipif(not small_disks_work(), reason="this machine lets nobody mount a disk")
def test_a_full_disk_is_one_warning(project: Project, farm: Farm) -> None:
    home = project.scratch / "home"
    home.mkdir()
    fill = ["sh", "-c", 'head -c 8M /dev/zero > "$0/filler" 2>/dev/null; exec "$@"', str(home)]
    project.rakefile("a:", *["remote-true"] * 5)
    check_one_warning(project.build(hosts=farm, prefix=[*with_small_disk(home, "1m"), *fill]))


def test_a_killed_build_leaves_whole_lines_of_all_but_its_last_moment(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "remote-true", "remote-sleep 600")
    client = project.start(hosts=farm)
    client.wait_for("action_finished")
    wait_until(lambda: "action_finished" in [record["event"] for record in records_of(project)], "it is written", 10.0)
    client.process.kill()
    client.process.communicate()
    assert os.path.getsize(path_of(project)) > 0
    assert records_of(project)[0]["event"] == "build_started"
