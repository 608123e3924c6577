"""The live table: its layout at many sizes, and on a real pseudo-terminal what passes and what stays."""

import fcntl
import io
import json
import os
import re
import struct
import termios
import threading
import tty

import pytest
from rich.cells import cell_len
from rich.console import Console

from rakefarm.client import live
from rakefarm.client.board import Board
from rakefarm.client.frame import MAX_HOSTS, MAX_ROWS, Frame, divide
from rakefarm.client.live import LiveView
from rakefarm.client.plain import Channel
from rakefarm.client.view import OutputClosedError, open_view
from rakefarm.events import (
    ActionFinished,
    ActionOutput,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    BuildFinished,
    BuildStarted,
    HostLeftOut,
    HostReady,
    Notice,
)

HOSTILE = "cc \x1b[2J\udcff\u202e 日本語の名前日本語の名前日本語の名前日本語.c"


def build(hosts=3, running=4, command="cc -std=c99 -O2 -Iinclude -c src/module/source.c -o source.o"):
    """The events of a build in its middle."""
    names = tuple(f"lab{number}:6238" for number in range(hosts))
    yield BuildStarted(rakefile="R", actions=10_000, sets=2, hosts=names)
    for name in names:
        yield HostReady(host=name, slots=4, server_version="1", isolation="none")
    for number in range(running + 2):
        yield ActionQueued(action=number, set_name="build", line=number, command=command, remote=True)
        yield ActionPlaced(action=number, host=names[number % hosts], price=1.234)
        yield ActionPhase(action=number, host=names[number % hosts], phase="running")
    for number in range(2):
        yield ActionFinished(
            action=number,
            host=names[number % hosts],
            outcome="succeeded",
            elapsed_s=2.0,
            ran_s=1.5,
            bytes_sent=34_567_890,
            bytes_received=1234,
        )


def drawn(events, width, height=24, rows=20, fancy=True):
    """The lines of a frame, through a rich console into a string, without styles."""
    board = Board()
    for event in events:
        board.apply(event)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    frame = Frame(board.snapshot(12.3, rows), width, height, rows, fancy)
    with console.capture() as captured:
        console.print(frame, end="", crop=False, soft_wrap=True)
    return captured.get().split("\n")


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("command", ["cc -c x.c", "cc -c " + "long/" * 90 + "x.c", HOSTILE])
def test_columns_are_fixed_whatever_the_commands(width, command):
    lines = drawn(build(command=command), width)
    heading = lines[0]
    assert heading.split()[:5] == ["action", "host", "phase", "price", "elapsed"]
    column = heading.index("command")
    for line in lines[1:5]:
        assert line[column - 1] == " " and line[column:].startswith("cc ")
        assert line.split()[1:4] == [line.split()[1], "running", "1.23"]
    assert all(cell_len(line) < width for line in lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(("width", "sizes"), [(60, []), (80, ["bytes"]), (200, ["sent", "received"])])
def test_sizes_are_shown_where_there_is_room(width, sizes):
    lines = drawn(build(), width)
    assert lines[0].split()[5:-1] == sizes
    assert ("33.0 MiB" in "".join(lines)) is bool(sizes)


@pytest.mark.parametrize("width", [1, 2, 5, 20, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 24, 50])
@pytest.mark.parametrize("hosts", [1, 3, 40])
def test_it_is_never_larger_than_the_terminal(width, height, hosts):
    lines = drawn(build(hosts=hosts, running=50, command=HOSTILE), width, height)
    assert len(lines) <= max(1, height - 1)
    assert all(cell_len(line) <= max(1, width - 1) for line in lines)


@pytest.mark.parametrize("height", range(1, 60))
@pytest.mark.parametrize("hosts", [0, 1, 2, 6, 7, 100])
def test_lines_are_divided(height, hosts):
    host_lines, row_lines = divide(height, hosts, 20)
    assert 0 <= host_lines <= min(hosts, MAX_HOSTS + 1) and 0 <= row_lines <= MAX_ROWS
    headings = (host_lines > 0) + (row_lines > 0)
    assert host_lines + row_lines + headings + 1 <= max(1, height - 1)
    if height >= 10:
        assert row_lines >= 2 and (host_lines > 0 or hosts == 0)


def test_many_hosts_end_in_how_many_more():
    events = [*build(hosts=40, running=8), HostLeftOut(host="lab39:6238", reason="silent")]
    lines = drawn(events, 80, 50)
    assert "+34 more: 4 running, 1 left out" in lines
    assert sum(line.startswith("lab") for line in lines) == MAX_HOSTS
    seven = drawn(build(hosts=7), 80, 50)
    assert sum(line.startswith("lab") for line in seven) == MAX_HOSTS and any("+1 more" in x for x in seven)
    assert "40 hosts: 8 running, 1 left out" in drawn(events, 80, 8)


def test_the_bar_counts_and_tells_the_rest_only_when_it_can():
    assert drawn(build(), 80)[-1].lstrip("━─") == " 2/10000, 12.3 s, 4 running, 0 waiting, set 0/2"
    ended = [ActionFinished(action=50 + n, host="lab0:6238", outcome="succeeded") for n in range(4998)]
    assert ", 12.3 s, about 12 s left" in drawn([*build(), *ended], 80)[-1]
    failed = ActionFinished(action=2, host="lab0:6238", outcome="failed")
    assert " 3/10000, 1 failed, 12.3 s" in drawn([*build(), failed], 60)[-1]
    assert drawn([*build(), *ended], 80)[-1].startswith("━" * 6 + "─" * 6 + " 5000")


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("fancy", [True, False])
def test_hosts_that_differ_in_their_port_alone_are_told_apart(width, fancy):
    names = ["127.0.0.1:41783", "machine-7.laboratory.example:41784", "[2001:db8::1234:5678]:41785"]
    events = [BuildStarted(rakefile="R", actions=9, sets=1, hosts=tuple(names))]
    for number, name in enumerate(names):
        events.append(ActionQueued(action=number, set_name="s", line=number, command="cc", remote=True))
        events.append(ActionPlaced(action=number, host=name, price=1.234))
    lines = drawn(events, width, fancy=fancy)
    for name in names:
        assert sum(f":{name.rpartition(':')[2]} " in line for line in lines) == 2, lines
    assert drawn([*events, ActionPlaced(action=0, host=names[1], price=1.0, backup=True)], width, fancy=fancy)


@pytest.mark.parametrize("width", [40, 48, 60, 80, 200])
def test_headings_stand_above_their_columns(width):
    lines = drawn(build(), width)
    actions, hosts = lines[0], next(line for line in lines if line.startswith("host"))
    below = lines[lines.index(hosts) + 1]
    assert lines[1][actions.index("phase") :].startswith("running ")
    assert lines[1][: actions.index("price") + len("price")].endswith(" 1.23")
    assert below[: hosts.index("running") + len("running")].endswith("/4")
    assert below[: hosts.index("busy") + len("busy")].endswith(" s")


def test_a_terminal_without_unicode_gets_ascii():
    text = "".join(drawn(build(command="c" * 500), 80, fancy=False))
    assert text.isascii() and "..." in text


class Terminal:
    """A pseudo-terminal, and a small model of what a person sees on it: just what the live table uses."""

    def __init__(self, columns=80, lines=24):
        self.leader, self.follower = os.openpty()
        tty.setraw(self.follower)  # no translation of line ends: bytes can be compared
        self.received = bytearray()
        self._changed = threading.Condition()
        self.resize(columns, lines)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def resize(self, columns, lines):
        self.columns, self.lines = columns, lines
        fcntl.ioctl(self.follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def channel(self, name="standard error"):
        return Channel(name, self.follower)

    def _read(self):
        while True:
            try:
                data = os.read(self.leader, 65536)
            except OSError:  # the last writer has closed
                return
            with self._changed:
                self.received += data
                self._changed.notify_all()

    def wait_for(self, wanted):
        """Until these bytes have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: wanted in self.received, timeout=30)

    def drain(self):
        """Everything that was written has been received when this returns."""
        mark = b"<everything has come>"
        os.write(self.follower, mark)
        self.wait_for(mark)
        with self._changed:
            del self.received[-len(mark) :]

    def close(self):
        os.close(self.follower)
        self._reader.join()
        os.close(self.leader)

    def screen(self):
        """All lines ever shown, those scrolled away included, as they stand now."""
        self.drain()
        rows, line, column = [[]], 0, 0
        text = self.received.decode("utf-8", "replace")
        for code, character in re.findall(r"\x1b\[([?0-9;]*[A-Za-z])|(.)", text, re.DOTALL):
            if character == "\r":
                column = 0
            elif character == "\n":
                line += 1
                if line == len(rows):
                    rows.append([])
            elif character:
                rows[line] += [" "] * (column - len(rows[line]))
                rows[line][column : column + 1] = [character]
                column += 1
            elif code.endswith("A"):
                line -= int(code[:-1])
                assert line >= 0
            elif code == "J":
                del rows[line][column:], rows[line + 1 :]
            elif code == "K":
                del rows[line][column:]
            elif code.endswith("M"):
                del rows[line : line + int(code[:-1])]
                rows[line:line] = [[]]
            else:
                assert code in ("?25l", "?25h") or code.endswith("m"), code
        return ["".join(row).rstrip() for row in rows]


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def view(terminal, clock):
    view = LiveView(terminal.channel("standard output"), terminal.channel(), colour=False, clock=clock, threaded=False)
    yield view
    view.close()


def feed(view, *events):
    for event in events:
        view(event)


FAILED = ActionFinished(action=3, host="lab0:6238", outcome="failed", detail="exit status 1")
ENDED = BuildFinished(exit_status=1, succeeded=2, failed=1, not_started=0, elapsed_s=9.0)


def test_output_passes_unchanged_and_in_one_piece(terminal, clock, view):
    payload = bytes(range(256)) * 300 + b"\xff\n"
    feed(view, *build())
    view.refresh()
    view(ActionOutput(action=2, stdout=payload, stderr=b"half a line\xfe"))
    view.refresh()
    view(ActionFinished(action=2, host="lab0:6238", outcome="succeeded"))
    view.refresh()
    terminal.drain()
    assert payload + b"half a line\xfe" in terminal.received


def test_a_large_output_in_several_events_is_not_cut(terminal, clock, view):
    pieces = [bytes([65 + number]) * 50_000 for number in range(4)]  # none ends a line
    feed(view, *build())
    view.refresh()
    for piece in pieces:
        clock.now += 1.0
        view(ActionOutput(action=2, stdout=piece))
        view.refresh()
    view(ActionFinished(action=2, host="lab0:6238", outcome="succeeded"))
    view.refresh()
    terminal.drain()
    assert b"".join(pieces) + b"\r\n" in terminal.received


def test_the_table_stays_below_what_was_said(terminal, clock, view):
    feed(view, *build())
    view.refresh()
    clock.now += 1.0
    feed(view, ActionOutput(action=3, stderr=b"x.c:1: error\r\nno end"), FAILED)
    clock.now += 1.0
    feed(view, Notice(level="warning", text="odd"))
    view.refresh()
    lines = terminal.screen()
    assert lines[:2] == ["x.c:1: error", "no end"]
    assert lines[2].startswith("failed: set 'build', line 3: cc -std=c99")
    assert lines[3] == "rakefarm: warning: odd"
    assert lines[4].startswith("action host")
    assert sum(line.startswith("action host") for line in lines) == 1
    assert sum(line.startswith("failed:") for line in lines) == 1


def test_a_burst_is_gathered_and_written_with_the_next_frame(terminal, clock, view):
    feed(view, *build())
    view.refresh()
    written = []
    view._write = lambda channel, data: written.append(bytes(data))
    for _ in range(100):
        view(Notice(level="warning", text="again"))
    assert written == []
    view.refresh()
    assert len(written) == 1 and written[0].count(b"again") == 100
    clock.now += 2 * live.GATHER_S
    view(Notice(level="warning", text="alone"))  # not in a burst: at once
    assert len(written) == 2 and b"alone" in written[1] and b"action host" in written[1]
    view(ActionOutput(action=2, stdout=b"x" * (live.PENDING_LIMIT_BYTES + 1)))  # too much to hold
    assert any(b"x" * live.PENDING_LIMIT_BYTES in data for data in written[2:])


def test_the_end_leaves_a_summary_and_no_table(terminal, clock, view):
    feed(view, *build())
    view.refresh()
    feed(view, FAILED, ENDED)
    view.close()
    lines = terminal.screen()
    assert lines[0].startswith("failed: ")
    assert lines[1:] == [
        "rakefarm: 3 actions, 1 failed in 9.0 s",
        "  3 remote",
        "  65.9 MiB sent, 2.4 KiB back",
        "  lab0:6238      2 actions    1.5 s busy   33.0 MiB sent    1.2 KiB back",
        "  lab1:6238       1 action    1.5 s busy   33.0 MiB sent    1.2 KiB back",
        "",
    ]


def test_left_by_an_exception_the_table_goes_and_the_cursor_is_shown(terminal):
    with (
        pytest.raises(KeyboardInterrupt),
        open_view("live", "never", 0, None, {}, terminal.follower, terminal.follower) as view,
    ):
        feed(view, *build())
        terminal.wait_for(b"action host")  # drawn by the thread
        raise KeyboardInterrupt
    assert not any(thread.name == "live table" for thread in threading.enumerate())
    assert terminal.screen() == [""]
    assert terminal.received.rindex(b"\x1b[?25h") > terminal.received.rindex(b"\x1b[?25l")


def test_the_cursor_is_hidden_only_within_one_write(terminal, clock, view):
    written = []
    view._write = lambda channel, data: written.append(bytes(data))
    feed(view, *build())
    for step in range(5):
        clock.now += 1.0
        feed(view, ActionOutput(action=2, stdout=b"out", stderr=b"err"), Notice(level="error", text="e"))
        view.refresh()
        assert step < len(written)
    for data in written:
        assert data.count(b"\x1b[?25l") == data.count(b"\x1b[?25h")


def test_a_resize_is_noticed_and_erases_nothing_above(terminal, clock, view):
    terminal.resize(100, 24)
    feed(view, *build())
    view.refresh()
    terminal.resize(50, 24)
    clock.now += 1.0
    view(Notice(level="warning", text="odd"))  # the last frame no longer fits: none is drawn
    terminal.drain()
    assert terminal.received.endswith(b"\r\x1b[Jrakefarm: warning: odd\r\n")
    view.refresh()
    assert terminal.screen()[0] == "rakefarm: warning: odd"
    last = terminal.received[terminal.received.rindex(b"\x1b[?25l") :].decode()
    assert all(cell_len(re.sub(r"\x1b\[[?0-9;]*\w", "", line)) < 50 for line in last.split("\r\n"))


def test_what_is_typed_meanwhile_does_not_move_the_table(terminal, clock, view):
    feed(view, *build())
    view.refresh()
    terminal.drain()
    os.write(terminal.follower, b"^C")  # as the terminal's echo of Ctrl-C
    feed(view, FAILED, ENDED)
    lines = terminal.screen()
    assert lines[0].startswith("failed: ") and not any("action host" in line for line in lines)


@pytest.mark.parametrize("lines", [10, 24])
def test_low_terminals_keep_all_of_the_table_in_sight(lines):
    terminal = Terminal(80, lines)
    with open_view("live", "never", 0, None, {}, terminal.follower, terminal.follower) as view:
        feed(view, *build(hosts=9, running=40))
        terminal.wait_for(b"running, 0 waiting")
    terminal.close()
    ups = [int(up) for up in re.findall(rb"\x1b\[(\d+)A", terminal.received)]
    assert ups and max(ups) < lines - 1


def test_stdout_elsewhere_gets_only_the_raw_bytes(terminal, tmp_path):
    path, lines = tmp_path / "out", tmp_path / "build.jsonl"
    with (
        path.open("wb") as stdout,
        open_view("auto", "auto", 0, str(lines), {}, stdout, terminal.follower) as view,
    ):
        feed(view, *build(), ActionOutput(action=3, stdout=b"a\xff\0half", stderr=b"to stderr\n"))
        assert path.read_bytes() == b"a\xff\0half"  # it does not wait for the table
        terminal.wait_for(b"action host")
        feed(view, FAILED, ENDED)
    terminal.drain()
    assert path.read_bytes() == b"a\xff\0half"
    assert b"to stderr\n" in terminal.received and b"half" not in terminal.received
    assert json.loads(lines.read_bytes().splitlines()[-1])["event"] == "build_finished"


def test_json_and_a_table_do_not_share_a_terminal(terminal):
    with open_view("auto", "auto", 0, "-", {}, terminal.follower, terminal.follower) as view:
        feed(view, *build(), ENDED)
    terminal.drain()
    assert b"\x1b[?25l" not in terminal.received


def test_a_broken_pipe_is_raised_once_and_the_table_goes_on(terminal, clock):
    reading, writing = os.pipe()
    os.close(reading)
    view = LiveView(Channel("standard output", writing), terminal.channel(), clock=clock, threaded=False)
    feed(view, *build())
    with pytest.raises(OutputClosedError):
        view(ActionOutput(action=2, stdout=b"lost"))
    view(ActionOutput(action=3, stdout=b"dropped", stderr=b"seen\n"))
    view.refresh()
    view.close()
    os.close(writing)
    terminal.drain()
    assert b"seen\n" in terminal.received and b"action host" in terminal.received


def test_a_terminal_that_went_away_is_raised_by_the_next_call(terminal, clock, view):
    feed(view, *build())
    view._stderr._write_all = lambda data: (_ for _ in ()).throw(BrokenPipeError())
    view.refresh()
    with pytest.raises(OutputClosedError, match="standard error"):
        view(ENDED)
    view.close()


def test_in_the_background_output_passes_but_nothing_is_drawn_or_erased(terminal, clock, view):
    feed(view, *build())
    view.refresh()
    terminal.drain()
    before = len(terminal.received)
    view._in_foreground = lambda: False
    clock.now += 1.0
    view(ActionOutput(action=2, stdout=b"out\r\n"))
    view.refresh()
    terminal.drain()
    assert terminal.received[before:] == b"out\r\n"
    del view._in_foreground
    view.refresh()
    terminal.drain()
    assert b"action host" in terminal.received[before:]


def test_verbose_lines_stand_above_the_table(terminal, clock):
    view = LiveView(None, terminal.channel(), verbose=1, colour=True, clock=clock, threaded=False)
    feed(view, *build())
    view.refresh()
    view.close()
    terminal.drain()
    assert terminal.received.count(b": on lab0:6238 at 1.23\r\n") == 2
    assert b"\x1b[32m" in terminal.received
