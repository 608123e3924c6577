"""`rakefarm breakeven` against real servers."""

import json
import subprocess
import sys

import pytest
from farm_vocabulary import Project
from server_vocabulary import Server


def run(project: Project, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "rakefarm", "breakeven", *words],
        cwd=project.path,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr and done.returncode != 70, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_hosts_are_tried_and_actions_judged(project: Project, farm: tuple[Server, ...]) -> None:
    project.write("a.c", b"int a;\n")
    project.rakefile("a:", "remote-cc -c a.c", "> requires a.c")
    status, stdout, stderr = run(project, "--seconds", "0", "--json", farm[0].address)
    assert status == 0, stderr
    told = json.loads(stdout)
    (host,), (action,) = told["hosts"], told["actions"]
    assert host["problem"] is None
    assert host["slots"] >= 1
    assert 0 < host["round_trip_s"] < 5
    assert host["rate_bps"] > 1e6
    assert host["handling_s"] > 0
    assert action["command"] == "cc -c a.c"
    assert action["input_bytes"] == 7
    assert action["advice"] in ("send", "send once its inputs are there", "keep here")


def test_tables_for_people_name_what_could_not_be_tried(project: Project, farm: tuple[Server, ...]) -> None:
    status, stdout, stderr = run(project, "--seconds", "0", farm[0].address, "127.0.0.1:1")
    assert status == 0, stderr
    assert farm[0].address in stdout
    assert "127.0.0.1:1: " in stdout
    assert "A build of 200 actions" in stdout


def test_no_host_that_can_be_tried_is_a_failed_farm(project: Project) -> None:
    status, stdout, _ = run(project, "--seconds", "0", "127.0.0.1:1")
    assert status == 3
    assert "connection refused" in stdout.lower()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--seconds", "soon", "h"), "--seconds soon: not a number"),
        (("--seconds", "nan", "h"), "--seconds nan: not a number"),
        (("local",), "local is what the hosts are measured against"),
        ((), "no host is named"),
    ],
)
def test_bad_words_are_one_line(project: Project, words: tuple[str, ...], complaint: str) -> None:
    status, stdout, stderr = run(project, *words)
    assert (status, stdout) == (2, "")
    assert complaint in stderr
    assert len(stderr.strip().splitlines()) == 1
