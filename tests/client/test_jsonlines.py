"""`--json`: each event one line, every byte kept, stdout owned, a file that cannot be opened said clearly."""

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.client.jsonlines import JsonLines, json_line
from rakefarm.client.plain import Channel
from rakefarm.client.view import OutputClosedError, ViewError, open_view
from rakefarm.events import ActionFinished, ActionOutput, ActionQueued, Notice, QuoteReceived, Stream


def test_a_line_is_the_event_as_a_record():
    event = ActionFinished(action=3, host="lab1:6238", outcome="succeeded", outputs=("a.o", "b.o"))
    line = json_line(event)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    record = json.loads(line)
    assert record["event"] == "action_finished" and record["schema"] == 1
    assert record["outputs"] == ["a.o", "b.o"] and record["host"] == "lab1:6238"


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_byte_of_the_output_is_lost(stdout, stderr):
    line = json_line(ActionOutput(action=1, stdout=stdout, stderr=stderr))
    assert line.isascii() and line.count(b"\n") == 1
    record = json.loads(line)
    assert record["stdout"].encode("utf-8", "surrogateescape") == stdout
    assert record["stderr"].encode("utf-8", "surrogateescape") == stderr


def test_commands_that_are_not_utf8_survive():
    command = b"cc -c \xff\xe4.c".decode("utf-8", "surrogateescape")
    line = json_line(ActionQueued(action=1, set_name="s", line=1, command=command, remote=True))
    assert json.loads(line)["command"].encode("utf-8", "surrogateescape") == b"cc -c \xff\xe4.c"


def test_numbers_that_json_lacks_become_null():
    event = QuoteReceived(action=1, host="h", price=float("inf"), terms={"base": float("nan"), "cpu": 2.0})
    record = json.loads(json_line(event), parse_constant=pytest.fail)
    assert record["price"] is None and record["terms"] == {"base": None, "cpu": 2.0}


def test_on_stdout_it_is_alone_and_errors_of_actions_still_reach_stderr():
    stdout, stderr = io.BytesIO(), io.BytesIO()
    with open_view("auto", "auto", 0, "-", {}, stdout, stderr) as view:
        stream = Stream("run-1", [view])
        stream.emit(ActionOutput(action=1, stdout=b"out\xff\n", stderr=b"err\xff\n"))
        stream.emit(Notice(level="info", text="hello"))
    records = [json.loads(line) for line in stdout.getvalue().splitlines()]
    assert [record["event"] for record in records] == ["action_output", "notice"]
    assert records[0]["run_id"] == "run-1"
    assert stderr.getvalue() == b"err\xff\nrakefarm: hello\n"


def test_beside_a_file_the_actions_output_is_shown_as_ever(tmp_path):
    stdout, stderr = io.BytesIO(), io.BytesIO()
    path = tmp_path / "build.jsonl"
    path.write_text("old content, longer than the new one " * 100)
    with open_view("plain", "auto", 0, str(path), {}, stdout, stderr) as view:
        view(ActionOutput(action=1, stdout=b"out\xff\n"))
        # It is there before the build has ended.
        assert json.loads(path.read_bytes())["stdout"] == "out\udcff\n"
        view(Notice(level="info", text="hello"))
    assert stdout.getvalue() == b"out\xff\n"
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("name", ["missing/build.jsonl", "", "a\0b"])
def test_a_file_that_cannot_be_opened_is_one_clear_line(tmp_path, name):
    target = str(tmp_path / name) if name else ""
    with pytest.raises(ViewError) as caught:
        open_view("plain", "auto", 0, target, {}, io.BytesIO(), io.BytesIO())
    assert str(caught.value).startswith("cannot open ") and "--json" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_reader_that_went_away_raises_once():
    reading, writing = os.pipe()
    os.close(reading)
    lines = JsonLines(Channel("standard output", writing))
    with pytest.raises(OutputClosedError, match="standard output was closed by its reader"):
        lines(Notice(level="info", text="one"))
    lines(Notice(level="info", text="two"))
    lines.close()
    os.close(writing)


def test_a_full_disk_raises_once_and_the_screen_still_gets_the_event():
    stderr = io.BytesIO()
    view = open_view("plain", "auto", 0, "/dev/full", {}, io.BytesIO(), stderr)
    with pytest.raises(ViewError, match="cannot write /dev/full: No space left on device"):
        view(Notice(level="warning", text="one"))
    view(Notice(level="warning", text="two"))
    view.close()
    view.close()
    assert stderr.getvalue() == b"rakefarm: warning: one\nrakefarm: warning: two\n"
