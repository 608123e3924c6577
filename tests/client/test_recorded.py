"""Events read back: what was written comes back the same, and whatever else stands in a file is refused with its line."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from story_vocabulary import StoppedClock, tell

from rakefarm import events
from rakefarm.client.jsonlines import json_line
from rakefarm.client.recorded import KINDS, NoEvent, event_of, read_events
from rakefarm.events import ActionOutput, BuildFinished, Event, QuoteReceived


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """A build."""
    clock = StoppedClock()
    monkeypatch.setattr(events, "time", clock)
    return tell(clock, [])


def lines_of(told: list[Event]) -> list[bytes]:
    return [json_line(event) for event in told]


def read(data: bytes) -> list[Event]:
    return list(read_events(io.BytesIO(data)))


def test_every_event_comes_back_as_it_was(told: list[Event]) -> None:
    assert read(b"".join(lines_of(told))) == [structs.replace(e, at_ns=e.at_ns // 10**6 * 10**6) for e in told]


def test_every_event_is_known() -> None:
    assert {kind.name: kind for kind in Event.__subclasses__()} == KINDS


@given(st.binary(), st.binary())
def test_outputs_come_back_byte_for_byte(stdout: bytes, stderr: bytes) -> None:
    event = ActionOutput(action=1, stdout=stdout, stderr=stderr, run_id="r")
    assert event_of(json.loads(json_line(event))) == event


def test_what_a_later_release_tells_is_passed_over(told: list[Event]) -> None:
    lines = lines_of(told)
    record = json.loads(lines[1])
    later = json.dumps({**record, "event": "host_painted"}).encode() + b"\n"
    more = json.dumps({**record, "colour": "green"}).encode() + b"\n"
    assert len(read(b"".join([lines[0], later, more, *lines[2:]]))) == len(told)


def test_a_term_that_json_could_not_hold_is_left_out() -> None:
    event = QuoteReceived(action=1, host="h", price=1.0, terms={"a": float("inf"), "b": 2.0})
    back = event_of(json.loads(json_line(event)))
    assert isinstance(back, QuoteReceived) and back.terms == {"b": 2.0}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": 2}, "its schema is not 1"),
        ({"schema": None}, "its schema is not 1"),
        ({"event": 7}, "it names no event"),
        ({"at": "yesterday"}, "its time of day is 'yesterday'"),
        ({"at": "0001-01-01T00:00:00+23:00"}, "its time of day is"),
        ({"at": "2026-01-01T00:00:00"}, "it has no time of day"),
        ({"at": None}, "it has no time of day"),
        ({"time_s": float("nan")}, "a number that is none"),
        ({"time_s": 1e300}, "a number that is none"),
        ({"actions": 10**400}, "a number that is none"),
        ({"time_s": "1"}, "Expected `float`"),
        ({"hosts": "lab1"}, "Expected `array`"),
        ({"actions": -1.5}, "Expected `int`"),
        ({"rakefile": None}, "Expected `str`"),
    ],
)
def test_a_value_that_no_build_tells(told: list[Event], change: dict[str, object], complaint: str) -> None:
    record = {**json.loads(json_line(told[0])), **change}
    with pytest.raises(NoEvent, match=f"line 1 is no event of a build: .*{complaint}"):
        read(json.dumps(record).encode() + b"\n")


@pytest.mark.parametrize(
    "line", [b"\n", b"{}\n", b"[]\n", b"null\n", b"\x00\xff\n", b"[" * 100_000 + b"\n", b'{"a":\n']
)
def test_a_line_that_is_no_event(told: list[Event], line: bytes) -> None:
    with pytest.raises(NoEvent, match="line 2 is no event of a build"):
        read(lines_of(told)[0] + line)


def test_an_output_that_stands_for_no_bytes() -> None:
    record = json.loads(json_line(ActionOutput(action=1)))
    with pytest.raises(NoEvent, match="no text that stands for bytes"):
        event_of({**record, "stderr": "\ud800"})


def test_a_file_that_is_cut_or_is_not_of_one_build(told: list[Event]) -> None:
    lines = lines_of(told)
    for data, complaint in (
        (b"", "it is empty"),
        (b"".join(lines)[:-10], f"line {len(lines)} is cut"),
        (b"".join(lines[:-1]), f"there is no end of the build after line {len(lines) - 1}"),
        (b"".join(lines[1:]), "line 1 is not the beginning of a build"),
        (b"".join(lines * 2), f"line {len(lines) + 1} is of another build"),
        (lines[0] + lines[1].replace(b"0123456789abcdef", b"another"), "line 2 is of another build"),
    ):
        with pytest.raises(NoEvent, match=complaint):
            read(data)


@given(st.data())
def test_whatever_is_changed_in_a_file_it_is_read_or_refused(data: st.DataObject) -> None:
    record = json.loads(json_line(BuildFinished(exit_status=0, succeeded=1, failed=0, not_started=0, elapsed_s=1.0)))
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.none()))
    )
    try:
        event_of(record)
    except NoEvent as error:
        assert str(error)
