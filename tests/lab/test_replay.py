"""`rakefarm replay`: a recorded build decided again, and what the model is worth."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_vocabulary import open_to_commands

from rakefarm import events
from rakefarm.cli import main
from rakefarm.events import (
    ActionFinished,
    ActionPlaced,
    ActionQueued,
    BuildFinished,
    BuildStarted,
    Event,
    HostLoad,
    HostReady,
    Stream,
)
from rakefarm.lab.draw import draw
from rakefarm.lab.emulation import EmulatedFarm, compile_work
from rakefarm.lab.loopback import scenario_of
from rakefarm.lab.recorded_build import NotTold, recorded_build
from rakefarm.lab.remodel import remodel
from rakefarm.lab.replay import replay

RAKEFILE = """first:
{first}
	sleep 0.3
then:
{second}
"""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three builds on emulated hosts: two by plan, one by round-robin, which is the last."""
    place = tmp_path_factory.mktemp("recorded")
    open_to_commands(place)
    sets = ["\n".join(f"\tremote-work 0.{2 + tag % 3} {name}{tag}\n\t\trequires" for tag in range(9)) for name in "ab"]
    (place / "Rakefile").write_text(RAKEFILE.format(first=sets[0], second=sets[1]))
    variables = {**os.environ, "XDG_STATE_HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    hosts = draw(scenario_of(3, ("uneven",)), 3).hosts
    with EmulatedFarm(hosts, compile_work(str(place)), str(place)) as farm:
        words = [sys.executable, "-m", "rakefarm.client", "-C", str(place), "--hosts", ",".join(farm.addresses)]
        for policy in ("plan", "plan", "round-robin"):
            done = subprocess.run([*words, "--policy", policy], env=variables, capture_output=True, timeout=60)
            assert done.returncode == 0, done.stderr
    return place / "rakefarm" / "ledger.jsonl"


def found(capsys: pytest.CaptureFixture[str], *words: str) -> dict:  # type: ignore[type-arg]
    assert main(["replay", *words, "--json"]) == 0
    record: dict[str, object] = json.loads(capsys.readouterr().out)
    return record


def test_the_model_makes_of_the_recorded_choices_what_was_recorded(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = found(capsys, str(ledger), "--policy", "plan")
    assert record["policy"] == "round-robin"
    assert record["modelled_s"] == pytest.approx(record["recorded_s"], rel=0.25)
    assert record["error"]["actions"] == 18 and record["error"]["median"] < 0.25
    # The builds by plan ran some of the same commands on other hosts.
    assert record["moved_error"]["actions"] > 5 and record["moved_error"]["median"] < 0.25
    assert 0 < record["policies"][0]["differing"] <= 18
    moved = [each for each in record["actions"] if each["hosts"]["plan"] != each["recorded"]]
    assert len(moved) == record["policies"][0]["differing"]


def test_policies_are_the_same_objects_and_the_same_again(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = str(ledger), "--policy", "plan", "--policy", "random"
    assert found(capsys, *words) == found(capsys, *words)
    assert found(capsys, *words, "--seed", "2") != found(capsys, *words)


def test_what_is_told_to_a_person(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(ledger), "--policy", "plan", "--policy", "cpu"]) == 0
    out = capsys.readouterr().out
    for words in (
        "18 actions in 2 sets on 3 hosts, 1 ran here",
        "Not modelled:",
        "the recorded choices, modelled",
        "cpu, modelled",
        "error of the model, recorded choices: median",
        "error on another host, by other builds: median",
        "work 0.2 a0",
    ):
        assert words in out


def test_ones_own_policy_is_asked_and_watched(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["policy", "new", "mine"]) == 0
    assert main(["replay", str(ledger), "--policy", "mine.py:make"]) == 0
    assert "mine.py:make, modelled" in capsys.readouterr().out
    Path("bad.py").write_text("import time\nclass Bad:\n    def __init__(self, view): time.time()\n")
    assert main(["replay", str(ledger), "--policy", "bad.py:Bad"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "time.time" in lines[0]


def without(ledger: Path, path: Path, event: str) -> Path:
    """A copy that lacks these lines."""
    lines = ledger.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if f'"event":"{event}"' not in line))
    return path


@pytest.mark.parametrize(
    ("event", "said"),
    [("host_load", "host_load"), ("host_ready", "host_ready"), ("build_finished", "interrupted"), ("action_placed", "no action of it ran")],
)  # fmt: skip
def test_a_ledger_that_lacks_what_it_takes_is_refused(
    ledger: Path, tmp_path: Path, event: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(without(ledger, tmp_path / "cut", event)), "--policy", "plan"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0] and "can't be replayed" in lines[0]


@pytest.mark.parametrize(("words", "said"), [
    (["nothing"], "nothing"), (["LEDGER", "--run", "zz"], "no run begins"), (["LEDGER", "--policy", "nobody"], "nobody"),
])  # fmt: skip
def test_what_is_not_there_is_told_in_one_line(
    ledger: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(ledger) if word == "LEDGER" else word for word in words]
    assert main(["replay", *words, "--policy", "plan"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


# --- what is taken from which event -----------------------------------------------------------------------


class Hand:
    """The time of events, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return int(1_800_000_000e9 + self.now_s * 1e9)


class Story:
    """A build, told event by event."""

    def __init__(self, clock: Hand) -> None:
        self.clock = clock
        self.events: list[Event] = []
        self._stream = Stream("a" * 16, [self.events.append])

    def tell(self, at_s: float, *events: Event) -> None:
        self.clock.now_s = 1000.0 + at_s
        self._stream.emit(*events)


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    clock = Hand()
    monkeypatch.setattr(events, "time", clock)
    told = Story(clock)
    told.tell(0.0, BuildStarted(rakefile="R", actions=4, sets=2, hosts=("x", "y"), policy="plan"))
    for host in "xy":
        told.tell(0.0, HostReady(host=host, slots=2, server_version="", isolation="none"), load(host))
    yield told


def load(host: str, **changes: float) -> HostLoad:
    fields = {"cores": 2, "busy": 0.0, "busy_in_all": 0.0, "running": 0, "waiting": 0, "speed": 1.0}
    rest = {"load_average": 0.0, "memory_available_bytes": 0, "sample_age_s": 0.0}
    return HostLoad(host=host, **{**fields, **rest, **changes})  # type: ignore[arg-type]


def queued(action: int, name: str = "s", remote: bool = True, expected_s: float | None = None) -> ActionQueued:
    return ActionQueued(
        action=action, set_name=name, line=action, command=f"c{action}", remote=remote, expected_s=expected_s
    )


def placed(action: int, host: str) -> ActionPlaced:
    return ActionPlaced(action=action, host=host, price=1.0, seconds=1.0)


def finished(action: int, host: str, ran_s: float, detail: str = "exit status 0") -> ActionFinished:
    return ActionFinished(action=action, host=host, outcome="succeeded", detail=detail, ran_s=ran_s)


END = BuildFinished(exit_status=0, succeeded=4, failed=0, not_started=0, elapsed_s=9.0)


def test_sets_local_actions_and_shared_cores(story: Story) -> None:
    story.tell(1.0, queued(1), queued(2), queued(3), queued(4, remote=False))
    story.tell(1.0, placed(1, "x"), placed(2, "x"), placed(3, "x"))
    story.tell(1.0, ActionPlaced(action=4, host="local", price=None))
    story.tell(4.0, finished(1, "x", 3.0), finished(2, "x", 3.0), finished(3, "x", 3.0))
    story.tell(6.0, finished(4, "local", 5.0))
    story.tell(6.5, queued(5), placed(5, "y"))
    story.tell(7.5, finished(5, "y", 1.0), END)
    build = recorded_build(story.events)
    assert [len(each.actions) for each in build.sets] == [3, 1]
    assert build.makespan_s == pytest.approx(6.5) and build.local == 1
    model = remodel(build, 1)
    assert model.work_s == pytest.approx((2.0, 2.0, 2.0, 1.0), rel=0.01), "three commands share two cores"
    assert [each for pair in model.drawn.clients[0].here for each in pair] == pytest.approx([5.0, 0.5, 0.0, 0.0])
    # In the model, too, the set lasts as long as what ran here.
    again = replay(build, [], ["plan"], 1)
    assert again.modelled_s == pytest.approx(6.5, abs=0.1)
    assert again.moved is None


def test_foreign_load_and_a_host_that_did_less_than_it_said(story: Story) -> None:
    numbers = range(1, 7)
    story.tell(1.0, *[queued(number, expected_s=0.1 * number) for number in numbers])
    now = 1.0
    for number in numbers:  # ten times slower than it says
        story.tell(now, placed(number, "x"))
        now += 1.0 * number
        story.tell(now, finished(number, "x", 1.0 * number))
    story.tell(now, load("y", busy=1.5), END)
    model = remodel(recorded_build(story.events), 1)
    assert model.honesty == pytest.approx({"x": 0.1, "y": 1.0}, rel=0.01)
    assert model.work_s == pytest.approx([0.1 * number for number in numbers], rel=0.05)
    x, y = model.drawn.hosts
    assert x.true_speed == pytest.approx(0.1, rel=0.01) and x.declared_speed == 1.0
    assert y.foreign.at(0.0) == 0.0 and y.foreign.at(now) == 1.5


@pytest.mark.parametrize(("slots", "took_s"), [(10**9, 1.0), (0, 1.0), (2, 1e9), (2, -1.0)])
def test_what_no_build_tells_is_refused(story: Story, slots: int, took_s: float) -> None:
    story.tell(0.5, HostReady(host="x", slots=slots, server_version="", isolation="none"))
    story.tell(1.0, queued(1), placed(1, "x"))
    story.tell(1.0 + took_s, finished(1, "x", took_s), END)
    with pytest.raises(NotTold, match=r"none of a build|no host has"):
        recorded_build(story.events)


def test_results_of_earlier_runs_tell_no_times(story: Story) -> None:
    story.tell(1.0, queued(1), placed(1, "x"))
    story.tell(2.0, finished(1, "x", 0.0, "exit status 0, of an earlier run"), END)
    with pytest.raises(NotTold, match="--fresh"):
        recorded_build(story.events)
