"""Plain lines, the channels bytes leave through, and how a view is chosen."""

import io
import os
import re
import subprocess
import sys
import threading

import pytest
from msgspec import structs

from rakefarm.client.board import Board
from rakefarm.client.narrator import Line, Narrator, summary_lines
from rakefarm.client.plain import Channel, PlainView
from rakefarm.client.summary import Summary
from rakefarm.client.view import OutputClosedError, open_view, wants_colour, wants_table
from rakefarm.events import (
    ActionFinished,
    ActionOutput,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    CopyEnded,
    HostLeftOut,
    HostReady,
    Notice,
    QuoteReceived,
)

QUEUED = ActionQueued(action=3, set_name="build", line=12, command="cc -c x.c", remote=True)
FAILED = ActionFinished(action=3, host="lab3:6238", outcome="failed", detail="exit status 1", elapsed_s=1.0)


def shown(*events, progress="plain", color="auto", verbose=0, environ=None):
    """What comes out on stdout and on stderr."""
    stdout, stderr = io.BytesIO(), io.BytesIO()
    with open_view(progress, color, verbose, None, environ or {}, stdout, stderr) as view:
        for event in events:
            view(event)
    return stdout.getvalue(), stderr.getvalue()


def lines(*events, **options):
    return shown(*events, **options)[1].decode().splitlines()


def test_a_failure_names_set_line_command_detail_and_host():
    assert lines(QUEUED, FAILED) == ["failed: set 'build', line 12: cc -c x.c: exit status 1 on lab3:6238"]


def test_a_local_failure_and_one_that_was_never_queued():
    local = ActionFinished(action=3, host="local", outcome="failed", detail="exit status 2")
    assert lines(QUEUED, local) == ["failed: set 'build', line 12: cc -c x.c: exit status 2 (local)"]
    missing = ActionFinished(action=9, host="", outcome="failed", detail="missing required file x.h")
    assert lines(missing) == ["failed: action 9: missing required file x.h"]


def test_what_the_farm_could_not_run():
    event = ActionFinished(action=3, host="", outcome="not_run", detail="no host left: lab1 refused")
    assert lines(QUEUED, event) == [
        "not run: set 'build', line 12: cc -c x.c: no host left: lab1 refused",
    ]


def test_one_reason_that_keeps_many_from_running_is_not_told_for_each():
    ended = [ActionFinished(action=n, host="", outcome="not_run", detail="lab1: refused") for n in range(1, 8)]
    other = ActionFinished(action=9, host="", outcome="not_run", detail="lab2: no tool")
    finished = BuildFinished(exit_status=3, succeeded=0, failed=8, not_started=0, elapsed_s=1.0)
    said = [line for line in lines(*ended, other, finished) if line.startswith("not run:")]
    assert said == [
        "not run: action 1: lab1: refused",
        *(f"not run: action {n}: as action 1" for n in (2, 3)),
        "not run: action 9: lab2: no tool",
        "not run: 4 more, as action 1",
    ]


@pytest.mark.parametrize("progress", ["plain", "none"])
def test_notices_and_hosts_left_out(progress):
    said = lines(
        Notice(level="info", text="no host named: this machine's cores"),
        Notice(level="warning", text="odd\x1b[2J"),
        Notice(level="error", text="bad"),
        HostLeftOut(host="lab3:6238", reason="connection refused"),
        progress=progress,
    )
    assert said[-3:] == [
        "rakefarm: warning: odd\\x1b[2J",
        "rakefarm: error: bad",
        "rakefarm: warning: lab3:6238 left out: connection refused",
    ]
    assert said[:-3] == (["rakefarm: no host named: this machine's cores"] if progress == "plain" else [])


def test_verbose_adds_a_line_per_placed_action_and_more_adds_quotes():
    events = (
        QUEUED,
        QuoteReceived(action=3, host="lab1:6238", price=None, reason="memory"),
        QuoteReceived(action=3, host="lab2:6238", price=2.5),
        ActionPlaced(action=3, host="lab2:6238", price=2.5),
        ActionRetried(action=3, host="lab2:6238", reason="lost"),
        ActionPlaced(action=3, host="local", price=None, attempt=2),
    )
    who = "set 'build', line 12: cc -c x.c"
    once = [f"{who}: on lab2:6238 at 2.50", f"again: {who}: lab2:6238: lost", f"{who}: on local, attempt 2"]
    assert lines(*events) == []
    assert lines(*events, verbose=1) == once
    assert lines(*events, verbose=1, progress="none") == []
    assert lines(*events, verbose=2) == [
        f"{who}: lab1:6238 declined: memory",
        f"{who}: lab2:6238 asks 2.50",
        *once,
    ]


def test_verbose_tells_how_each_action_ended_where_and_when():
    done = ActionFinished(action=3, host="lab2:6238", outcome="succeeded", detail="exit status 0", elapsed_s=1.25)
    here = ActionFinished(action=3, host="local", outcome="failed", detail="exit status 2", elapsed_s=0.5)
    who = "set 'build', line 12: cc -c x.c"
    assert lines(QUEUED, done) == []
    assert lines(QUEUED, done, QUEUED, here, verbose=1) == [
        f"ended: {who}: exit status 0 on lab2:6238 after 1.2 s",
        f"failed: {who}: exit status 2 (local) after 0.5 s",
    ]
    assert lines(QUEUED, done, verbose=1, progress="none") == []


@pytest.mark.parametrize("progress", ["plain", "none"])
def test_a_host_that_loses_actions_is_told_of_once(progress):
    retried = [
        ActionRetried(action=number, host=host, reason=reason)
        for number in (1, 2)
        for host, reason in (("lab1", "lost: reset"), ("lab2", "lost: gone"), ("lab3", "memory: too little"))
    ]
    left_out = [HostLeftOut(host="lab1", reason="refused")] * 2
    killed = ActionRetried(action=5, host="lab4", reason="executor: the executor was killed")
    copy = CopyEnded(action=6, host="lab5", reason="lost: the server closed the connection")
    assert lines(killed, copy, killed, copy, progress=progress) == [
        "rakefarm: warning: lab4: executor: the executor was killed; what it has lost is run again",
        "rakefarm: warning: lab5: lost: the server closed the connection; what it has lost is run again",
    ]
    assert lines(*retried, *left_out, progress=progress) == [
        "rakefarm: warning: lab1: lost: reset; what it has lost is run again",
        "rakefarm: warning: lab2: lost: gone; what it has lost is run again",
        "rakefarm: warning: lab1 left out: refused",  # the second time: the first is what the loss was told for
    ]


def at(second, event):
    return structs.replace(event, time_s=1000.0 + second)


def test_progress_is_told_now_and_then():
    begin = BuildStarted(rakefile="R", actions=9, sets=2, hosts=("lab1",))
    done = [
        ActionFinished(action=1, host="lab1", outcome="succeeded"),
        ActionFinished(action=2, host="lab1", outcome="succeeded"),
    ]
    events = [at(0, begin), at(0, QUEUED), at(1.9, done[0]), at(2, done[1]), at(3.9, QUEUED), at(5, QUEUED)]
    assert lines(*events) == [
        "rakefarm: 2 of 9 actions, set 0 of 2, 1 waiting, after 2.0 s",
        "rakefarm: 2 of 9 actions, set 0 of 2, 1 waiting, after 5.0 s",
    ]
    assert lines(*events, progress="none") == []


def test_progress_of_a_long_build_does_not_fill_the_log():
    begin = at(0, BuildStarted(rakefile="R", actions=9, sets=1, hosts=()))
    beats = [at(second, ActionPhase(action=3, host="lab1", phase="running")) for second in range(2, 3602, 2)]
    assert 30 <= len(lines(begin, at(1, QUEUED), *beats)) <= 60
    assert lines(begin, at(1, QUEUED)) == []


def test_verbose_tells_of_slowness_that_was_seen():
    placed = ActionPlaced(
        action=3, host="lab1", price=2.5, slowness=1.5, runner_up="lab2", runner_up_price=9.0, runner_up_slowness=8.0
    )
    assert lines(QUEUED, placed, verbose=1) == [
        "set 'build', line 12: cc -c x.c: on lab1 at 2.50 (1.50 of it for having been slower than it says),"
        " before lab2 at 9.00 (8.00 of it for having been slower than it says)"
    ]


def test_verbose_tells_of_copies():
    events = (
        QUEUED,
        ActionPlaced(action=3, host="lab1:6238", price=2.5),
        ActionPlaced(action=3, host="lab2:6238", price=1.5, attempt=2, backup=True),
        CopyEnded(action=3, host="lab1:6238", reason="superseded"),
    )
    who = "set 'build', line 12: cc -c x.c"
    assert lines(*events) == []
    assert lines(*events, verbose=1)[1:] == [
        f"{who}: a copy on lab2:6238 at 1.50",
        f"copy: {who}: lab1:6238: superseded",
    ]


def test_the_summary():
    events = (
        BuildStarted(rakefile="R", actions=3, sets=1, hosts=("lab1:6238", "lab2:6238", "lab3:6238")),
        HostReady(host="lab1:6238", slots=2, server_version="1", isolation="none"),
        HostLeftOut(host="lab3:6238", reason="silent; look at its log"),
        ActionRetried(action=2, host="lab2:6238", reason="executor: the executor was killed"),
        ActionRetried(action=1, host="lab2:6238", reason="lost: gone"),
        ActionQueued(action=1, set_name="s", line=1, command="cc", remote=True),
        ActionFinished(
            action=1,
            host="lab1:6238",
            outcome="succeeded",
            elapsed_s=70.0,
            ran_s=61.0,
            bytes_sent=3 << 20,
            bytes_received=2048,
        ),
        ActionFinished(action=2, host="local", outcome="failed", detail="exit status 1", elapsed_s=0.5, ran_s=0.25),
        BuildFinished(exit_status=1, succeeded=1, failed=1, not_started=1, elapsed_s=75.0),
    )
    assert lines(*events)[3:] == [
        "rakefarm: 2 actions, 1 failed, 1 not started in 1:15",
        "  1 remote, 1 local; 2 retried",
        "  3.0 MiB sent, 2.0 KiB back",
        "  lab1:6238          1 action     1:01 busy    3.0 MiB sent    2.0 KiB back",
        "  lab2:6238     lost 2 actions",
        "  this machine       1 action    0.2 s busy",
        "  lab3:6238     left out: silent",
    ]
    assert not any("actions" in line for line in lines(*events, progress="none"))
    end = BuildFinished(exit_status=130, succeeded=0, failed=0, not_started=0, elapsed_s=1, interrupted=True)
    assert lines(end) == ["rakefarm: interrupted: 0 actions in 1.0 s"]


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("colour", [False, True])
def test_what_is_not_a_command_is_broken_between_words(columns, colour):
    name = "a-machine.laboratory.example:6238"
    reason = "it is on the network, and there is no key; make one with 'rakefarm key new' [RF113]"
    events = (
        BuildStarted(rakefile="R", actions=3, sets=1, hosts=(name,)),
        HostLeftOut(host=name, reason=reason),
        ActionFinished(action=1, host="lab1:6238", outcome="succeeded", bytes_sent=3 << 20, bytes_received=2048),
        ActionFinished(action=2, host="lab1:6238", outcome="not_run", detail=reason),
        BuildFinished(exit_status=1, succeeded=1, failed=1, not_started=1, elapsed_s=75.0),
    )
    board, summary, narrator = Board(), Summary(), Narrator()
    told = []
    for event in events:
        row = board.apply(event)
        summary.apply(event)
        told += narrator.lines(event, row)
    told += [
        *summary_lines(board, summary, events[-1]),
        Line("", "nothing ran remotely " * 9, "bold", "rakefarm: ", True),
    ]
    for line in told:
        whole, painted = line.painted(colour), line.painted(colour, columns)
        assert re.sub(r"\x1b\[[0-9;]*m", "", painted).split() == re.sub(r"\x1b\[[0-9;]*m", "", whole).split()
        if line.wraps:
            assert all(len(each) < columns for each in re.sub(r"\x1b\[[0-9;]*m", "", painted).splitlines())
            assert not colour or painted.count("\x1b[0m") == (painted.count("\x1b[") + 1) // 2
        else:
            assert painted == whole
    sizes = "".join(line.painted(False, columns) for line in told)
    assert "3.0 MiB sent" in sizes and "2.0 KiB back" in sizes


def test_bytes_pass_unchanged_and_our_lines_begin_a_line():
    out, err = bytes(range(256)), b"no end of line\xff"
    stdout, stderr = shown(QUEUED, ActionOutput(action=3, stdout=out, stderr=err), FAILED)
    assert stdout == out
    assert stderr.startswith(err + b"\nfailed: ")


def test_one_file_for_both_streams_keeps_the_order(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as stdout:
        stderr = os.dup(stdout.fileno())
        with open_view("auto", "auto", 0, None, {}, stdout, stderr) as view:
            for event in (QUEUED, ActionOutput(action=3, stdout=b"half a line"), FAILED):
                view(event)
        os.close(stderr)
    assert path.read_bytes().startswith(b"half a line\nfailed: ")


def test_what_was_printed_before_comes_out_before(tmp_path):
    path = tmp_path / "log"
    with path.open("w") as stream:
        stream.write("earlier\n")
        with open_view("auto", "auto", 0, None, {}, stream, stream) as view:
            view(Notice(level="info", text="later"))
    assert path.read_text() == "earlier\nrakefarm: later\n"


def test_a_broken_pipe_raises_once_after_all_was_shown():
    reading, writing = os.pipe()
    os.close(reading)
    stderr = io.BytesIO()
    view = open_view("plain", "auto", 0, None, {}, writing, stderr)
    with pytest.raises(OutputClosedError, match="standard output was closed"):
        view(ActionOutput(action=3, stdout=b"lost", stderr=b"seen\n"))
    view(ActionOutput(action=3, stdout=b"dropped", stderr=b"too\n"))
    view.close()
    os.close(writing)
    assert stderr.getvalue() == b"seen\ntoo\n"


def test_leaving_with_an_error_keeps_that_error():
    class Broken:
        def __call__(self, event):
            pass

        def close(self):
            raise OutputClosedError("gone")

    from rakefarm.client.view import View

    with pytest.raises(KeyError), View((Broken(),)):
        raise KeyError
    with pytest.raises(OutputClosedError), View((Broken(),)):
        pass


def test_a_pipe_that_does_not_block_loses_nothing():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(300_000)
    received = bytearray()

    def read():
        while chunk := os.read(reading, 4096):
            received.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    PlainView(Channel("out", writing), Channel("err", writing))(ActionOutput(action=1, stdout=data))
    os.close(writing)
    reader.join()
    os.close(reading)
    assert bytes(received) == data


def test_an_encoding_that_cannot_hold_the_text():
    stderr = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with open_view("plain", "auto", 0, None, {}, io.BytesIO(), stderr) as view:
        view(Notice(level="info", text="naïve"))
    assert stderr.buffer.getvalue() == b"rakefarm: na\\xefve\n"


def test_colour_is_only_on_the_label():
    coloured = shown(QUEUED, FAILED, color="always")[1]
    assert coloured.startswith(b"\x1b[1;31mfailed:\x1b[0m set 'build', line 12: ")


@pytest.fixture
def terminal():
    leader, follower = os.openpty()
    yield Channel("standard error", follower)
    os.close(leader)
    os.close(follower)


@pytest.mark.parametrize(
    ("progress", "environ", "drawn"),
    [
        ("auto", {}, True),
        ("auto", {"TERM": "xterm-256color", "CI": ""}, True),
        ("auto", {"TERM": "dumb"}, False),
        ("auto", {"CI": "true"}, False),
        ("auto", {"NO_COLOR": "1"}, True),
        ("live", {"CI": "true"}, True),
        ("live", {"TERM": "dumb"}, False),
        ("plain", {}, False),
        ("none", {}, False),
    ],
)
def test_when_a_table_is_drawn(terminal, progress, environ, drawn):
    assert wants_table(progress, environ, terminal) is drawn
    assert wants_table(progress, environ, Channel("standard error", io.BytesIO())) is False


@pytest.mark.parametrize(
    ("color", "environ", "on_terminal", "elsewhere"),
    [
        ("auto", {}, True, False),
        ("auto", {"TERM": "dumb"}, False, False),
        ("auto", {"NO_COLOR": ""}, True, False),
        ("auto", {"NO_COLOR": "1"}, False, False),
        ("auto", {"FORCE_COLOR": "1"}, True, True),
        ("auto", {"FORCE_COLOR": "0"}, True, False),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ("always", {"NO_COLOR": "1"}, True, True),
        ("never", {"FORCE_COLOR": "1"}, False, False),
    ],
)
def test_when_there_is_colour(terminal, color, environ, on_terminal, elsewhere):
    assert wants_colour(color, environ, terminal) is on_terminal
    assert wants_colour(color, environ, Channel("standard error", io.BytesIO())) is elsewhere


def test_plain_lines_do_not_import_rich():
    program = (
        "import os, sys\n"
        "from rakefarm.client.view import open_view\n"
        "from rakefarm.events import Notice\n"
        "with open_view('auto', 'auto', 0, None, {}, sys.stdout, sys.stderr) as view:\n"
        "    view(Notice(level='info', text='hello'))\n"
        "sys.exit(any(name.split('.')[0] == 'rich' for name in sys.modules))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"rakefarm: hello\n")
