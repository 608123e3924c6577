"""`rakefarm play`: the same view once more, at any speed; a file that is no record of a build is one line."""

import io
import json
from pathlib import Path

import pytest
from story_vocabulary import StoppedClock, story_of_a_build, tell

from rakefarm import cli, events
from rakefarm.client import play
from rakefarm.client.view import open_view


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What --json=FILE wrote of the build; beside it `shown`, what it showed."""
    path = tmp_path / "events.jsonl"
    out, err = io.BytesIO(), io.BytesIO()
    clock = StoppedClock()
    with monkeypatch.context() as patched:
        patched.setattr(events, "time", clock)
        with open_view("plain", "auto", 1, str(path), {}, out, err) as view:
            tell(clock, [view])
    (tmp_path / "shown").write_bytes(err.getvalue())
    return path


def complaint_of(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["play", *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_it_shows_what_the_build_showed(record: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["play", str(record), "--speed", "max", "-v"]) == 0
    out, err = capfdbinary.readouterr()
    assert err == record.with_name("shown").read_bytes() and out == b""


def test_events_come_at_their_time(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Time:
        def __init__(self) -> None:
            self.now_s, self.slept = 5.0, list[float]()

        def monotonic(self) -> float:
            return self.now_s

        def sleep(self, seconds: float) -> None:
            self.slept.append(round(seconds, 6))
            self.now_s += seconds

    monkeypatch.setattr(play, "time", time := Time())
    assert cli.main(["play", str(record), "--speed", "4", "--progress", "none"]) == 0
    moments = [after_s for after_s, _ in story_of_a_build()]
    gaps = [later - one for one, later in zip(moments, moments[1:], strict=False) if later > one]
    assert time.slept == pytest.approx([gap / 4 for gap in gaps])


def test_it_writes_a_trace(record: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    assert cli.main(["play", str(record), "--speed", "max", "--progress", "none", "--trace", str(trace)]) == 0
    assert any(each.get("cat") == "action" for each in json.loads(trace.read_text())["traceEvents"])


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "fast", "", "1e9"])
def test_a_speed_that_is_none(record: Path, capfd: pytest.CaptureFixture[str], speed: str) -> None:
    assert "not a number from" in complaint_of(capfd, str(record), "--speed=" + speed)


def test_wrong_files_are_one_line(record: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in complaint_of(capfd, str(tmp_path / "none"))
    assert "Is a directory" in complaint_of(capfd, str(tmp_path))
    assert "it would overwrite" in complaint_of(capfd, str(record), "--trace", str(record))
    assert "for --report: " in complaint_of(capfd, str(record), "--report", str(tmp_path / "none" / "r.html"))
    lines = record.read_bytes().splitlines(keepends=True)
    for data, complaint in (
        (b"\x7fELF\x02\n", "line 1 is no event of a build"),
        (b"".join(lines[:5]) + b"\xff\n", "line 6 is no event of a build"),
        (b"".join(lines)[:-3], f"line {len(lines)} is cut"),
        (b"".join(lines[:9]), "there is no end of the build after line 9"),
    ):
        record.write_bytes(data)
        assert cli.main(["play", str(record), "--speed", "max", "--progress", "none"]) == 2
        assert complaint in capfd.readouterr().err.splitlines()[-1]


def test_events_that_contradict_each_other_break_nothing(tmp_path: Path, record: Path) -> None:
    lines = record.read_bytes().splitlines(keepends=True)
    middle = lines[1:-1]
    record.write_bytes(b"".join([lines[0], *reversed(middle), *middle, *middle[::3], lines[-1]]))
    options = ["--trace", str(tmp_path / "t.json"), "--report", str(tmp_path / "r.html")]
    assert cli.main(["play", str(record), "--speed", "max", *options]) == 0
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
