"""`--trace`: the file is a Chrome trace whose slices are what the events say, whole or not there, however a build ends."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from story_vocabulary import HOSTILE, LAB1, LAB2, StoppedClock, tell

from rakefarm import events
from rakefarm.client.plain import OutputFailedError, ViewError
from rakefarm.client.trace import Trace
from rakefarm.events import Event

Slice = dict[str, Any]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock()
    monkeypatch.setattr(events, "time", clock)
    return clock


def traced(clock: StoppedClock, path: Path, until: int | None = None) -> tuple[list[Slice], list[Event]]:
    """The trace of the build or of its first events, and the events."""
    trace = Trace(str(path))
    told = tell(clock, [trace], until=until)
    assert not path.exists()
    trace.close()
    trace.close()
    read = json.loads(path.read_text("ascii"))
    assert set(read) == {"displayTimeUnit", "traceEvents", "otherData"}
    return read["traceEvents"], told


def names_of(records: list[Slice]) -> dict[tuple[int, int], str]:
    """Process and thread names by their numbers; a process is thread 0."""
    named = [each for each in records if each["ph"] == "M" and each["name"] in ("process_name", "thread_name")]
    return {(each["pid"], each["tid"]): each["args"]["name"] for each in named}


def slices_of(records: list[Slice], kind: str) -> list[tuple[str, str, str, float, float]]:
    """Process, thread, name, begin and end (seconds)."""
    names = names_of(records)
    return [
        (
            names[each["pid"], 0],
            names.get((each["pid"], each["tid"]), ""),
            each["name"],
            each["ts"] / 1e6,
            (each["ts"] + each["dur"]) / 1e6,
        )
        for each in records
        if each["ph"] == "X" and each["cat"] == kind
    ]


def test_slices_are_what_the_events_say(clock: StoppedClock, tmp_path: Path) -> None:
    records, _ = traced(clock, tmp_path / "trace.json")
    command = HOSTILE.replace("\x1b", "\\x1b").replace("\udcff", "\\udcff")
    assert sorted(slices_of(records, "action"), key=lambda each: each[3]) == [
        (LAB1, "slot 1", "cc -c a.c", 0.4, 1.5),
        (LAB2, "slot 1", "cc -c b.c", 0.5, 0.6),
        (LAB1, "slot 2", "cc -c b.c", 0.6, 2.6),
        (LAB2, "slot 1", command, 0.8, 0.9),
        ("local", "slot 1", command, 1.6, 2.0),
    ]
    assert [each[2:] for each in slices_of(records, "phase") if each[:2] == (LAB1, "slot 1")] == [
        ("preparing", 0.4, 0.4),
        ("sending", 0.4, 0.5),
        ("running", 0.5, 1.4),
        ("receiving", 1.4, 1.5),
    ]
    assert slices_of(records, "set") == [("build of Rakefile", "", "set compile", 0.2, 2.8)]
    ends = {
        each["args"]["end"]: each["args"]["reason"] for each in records if each["ph"] == "X" and "end" in each["args"]
    }
    assert ends["lost"] == "lost: connection reset" and ends["refused"] == "the host was full"


def test_prices_are_counters_and_troubles_instants(clock: StoppedClock, tmp_path: Path) -> None:
    records, _ = traced(clock, tmp_path / "trace.json")
    names = names_of(records)
    prices = [(names[each["pid"], 0], each["ts"], each["args"]["price"]) for each in records if each["ph"] == "C"]
    assert prices[:3] == [(LAB1, 300_000, 1.25), (LAB2, 300_000, 1.5), (LAB1, 400_000, 1.25)]
    instants = [(names[each["pid"], 0], each["name"]) for each in records if each["ph"] == "i"]
    assert instants == [
        (LAB2, "action 3: lost: connection reset"),
        (LAB2, "left out: connection reset"),
        ("build of Rakefile", "odd"),
    ]


@pytest.mark.parametrize("until", [*range(1, 29), None])
def test_wherever_a_build_is_cut_phases_lie_within_actions_and_these_beside_each_other(
    clock: StoppedClock, tmp_path: Path, until: int | None
) -> None:
    records, told = traced(clock, tmp_path / "trace.json", until)
    placed = sum(event.name == "action_placed" for event in told)
    actions, phases = slices_of(records, "action"), slices_of(records, "phase")
    assert len(actions) == placed
    lanes = defaultdict(list)
    for process, thread, _, begin, end in actions:
        lanes[process, thread].append((begin, end))
    for spans in lanes.values():
        spans.sort()
        assert all(one[1] <= other[0] for one, other in zip(spans, spans[1:], strict=False))
    for process, thread, _, begin, end in phases:
        assert any(first <= begin <= end <= last for first, last in lanes[process, thread])
    for each in records:
        assert {"ph", "name", "pid"} <= set(each) and (each["ph"] == "M" or each["ts"] >= 0)


def test_without_a_build_there_is_no_file(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "trace.json"))
    trace.close()
    assert os.listdir(tmp_path) == []


def test_what_stood_there_stays_until_the_trace_is_whole(clock: StoppedClock, tmp_path: Path) -> None:
    path, link = tmp_path / "real.json", tmp_path / "trace.json"
    path.write_text("before")
    link.symlink_to(path)
    trace = Trace(str(link))
    tell(clock, [trace])
    assert path.read_text() == "before"
    trace.close()
    assert link.is_symlink() and json.loads(path.read_text())["traceEvents"]
    assert sorted(os.listdir(tmp_path)) == ["real.json", "trace.json"]


@pytest.mark.parametrize("name", ["", ".", "none/trace.json", "/dev/null", "nul\0", "x" * 300])
def test_where_no_file_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ViewError, match=r"cannot write .* for --trace: "):
        trace = Trace(name)
        tell(StoppedClock(), [trace])
        trace.close()


def test_a_full_disk_is_said_once(clock: StoppedClock, tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "trace.json"))
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, trace._file._descriptor)
    os.close(full)
    tell(clock, [trace])
    with pytest.raises(OutputFailedError, match="No space left"):
        trace.close()
    trace.close()
    assert os.listdir(tmp_path) == []
