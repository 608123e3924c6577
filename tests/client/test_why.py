"""`rakefarm why`: which action is meant, what is told of it, for people and programs, and every wrong use."""

import json
import os
from pathlib import Path

import pytest
from msgspec import structs
from story_vocabulary import HOSTILE, LAB1, LAB2, StoppedClock, tell

from rakefarm import cli, events
from rakefarm.client.ledger import Ledger
from rakefarm.config import ClientSettings


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(events, "time", StoppedClock())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "rakefarm" / "ledger.jsonl"


def keep(run_id: str = "aa11", until: int | None = None, **settings: object) -> None:
    """A build of which a ledger is kept."""
    with Ledger(structs.replace(ClientSettings(), **settings), os.environ, pytest.fail) as keeping:
        tell(events.time, [keeping], run_id, until)  # type: ignore[arg-type]
    events.time.now_s += 10  # type: ignore[attr-defined]


def asked(capfd: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What is printed; of a wrong use, the one line."""
    assert cli.main(["why", *words]) == status
    out, err = capfd.readouterr()
    assert (out == "") == bool(status) and (err == "") == (not status)
    assert err.count("\n") <= 1
    return out or err


def test_what_is_told_of_an_action(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep()
    assert asked(capfd, "1").splitlines() == [
        "action 1 of build aa11: set 'compile', line 11: cc -c a.c",
        "succeeded on lab1:6238, after 1.1 s where 1.0 s were promised (+10%)",
        "the command ran 0.9 s, 0.8 s of CPU, 120 B sent, 80 B of inputs were there",
        "made out/a.o",
        "",
        "placed  on         price  promised   took  and then",
        "0.40 s  lab1:6238   1.25       1 s  1.1 s  succeeded",
        "",
        "lab1:6238 at 1.25: 0.25 less than [::1]:6238 at 1.50",
        "",
        " asked  host        price  seconds   above  terms, or why not",
        "0.30 s  lab1:6238    1.25      1 s  lowest  base 1 + memory 0.25",
        "0.30 s  [::1]:6238   1.50    1.5 s    0.25  base 1.5",
        "",
    ]


def test_losses_refusals_and_quotes_of_another_of_its_sort(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep()
    refused, lost = asked(capfd, "2"), asked(capfd, "3")
    assert "refused 1× before that" in refused
    assert "refused: the host was full" in refused and "for action 1, which needs the same" in refused
    assert "lost 1× before" in lost and " lost: connection reset" in lost and "failed on local: exit status 1" in lost
    assert "\x1b" not in lost and "\udcff" not in lost


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("2", [2]),
        ("out/a.o", [1]),
        ("./out/a.o", [1]),
        ("b.o", [2]),
        ("cc -c b.c", [2]),
        ("-c a", [1]),
        ("cc", [1, 2, 3]),
    ],
)
def test_what_may_be_meant(ledger: Path, capfd: pytest.CaptureFixture[str], wanted: str, found: list[int]) -> None:
    keep()
    answer = json.loads(asked(capfd, "--json", "--", wanted))
    assert answer["run"] == "aa11" and [action["action"] for action in answer["actions"]] == found
    listed = asked(capfd, "--", wanted).splitlines()
    if len(found) > 1:
        assert listed[1:3] == ["1  set 'compile', line 11: cc -c a.c", "2  set 'compile', line 12: cc -c b.c"]
    else:
        assert listed[0].startswith(f"action {found[0]} of build")


def test_for_programs(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep()
    (action,) = json.loads(asked(capfd, "--json", "3"))["actions"]
    assert action["command"].encode("utf-8", "surrogateescape") == HOSTILE.encode("utf-8", "surrogateescape")
    assert [(each["host"], each["end"]) for each in action["placements"]] == [(LAB2, "lost"), ("local", "failed")]
    (action,) = json.loads(asked(capfd, "--json", "1"))["actions"]
    assert action["quotes"][0]["terms"] == {"base": 1.0, "memory": 0.25}
    assert action["placements"][0]["margin"] == 0.25 and action["placements"][0]["host"] == LAB1
    assert action["placements"][0]["promised_s"] == 1.0 and action["placements"][0]["took_s"] == pytest.approx(1.1)


def test_a_build_is_named_or_the_last(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep("aa11")
    keep("bb22", until=8)
    assert "no end of it is recorded" in asked(capfd, "1")
    assert "of build aa11" in asked(capfd, "1", "--run", "aa")
    assert "no run begins so" in asked(capfd, "1", "--run", "cc", status=2)
    keep("aa12")
    assert "several runs begin so" in asked(capfd, "1", "--run", "aa", status=2)


def test_a_ledger_of_pseudonyms(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep(ledger_hash=True)
    assert "cc -c" not in asked(capfd, "1")
    for wanted in ("out/a.o", "cc -c a.c"):
        assert asked(capfd, "--", wanted).startswith("action 1 of build")
    ledger.with_name("ledger.key").unlink()
    assert "no action of build aa11" in asked(capfd, "out/a.o", status=2)
    assert asked(capfd, "1").startswith("action 1")


def test_wrong_uses_are_one_line(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "there is no ledger; a build keeps one, unless" in asked(capfd, "1", status=2)
    ledger.parent.mkdir()
    ledger.write_text("")
    assert "there is no build in it" in asked(capfd, "1", status=2)
    keep()
    for nothing in ("4", "no such", "", "\x1b[9"):
        assert "no action of build aa11 is, makes or runs" in asked(capfd, "--", nothing, status=2)
    assert "--ledger" not in asked(capfd, "1", "--ledger", str(ledger))
    assert "Is a directory" in asked(capfd, "1", "--ledger", str(ledger.parent), status=2)


def test_lines_that_are_none_are_passed_over(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep()
    text = ledger.read_text()
    rubbish = '{"schema":1,"event":"action_placed","run_id":"aa11","action":"x"}\n'
    ledger.write_text(
        text.replace('"outcome":"succeeded"', '"outcome":"invented"', 1) + rubbish + "\x00\n[]\n" + text[:40]
    )
    assert cli.main(["why", "1"]) == 0
    out, err = capfd.readouterr()
    assert "no end of it is recorded" in out
    assert err == f"rakefarm: warning: {ledger}: skipped 5 lines that are cut or foreign\n"
