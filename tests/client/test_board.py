"""The board: events in, what a table shows out, and the text forms that every view uses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.client.board import (
    RECENT_LIMIT,
    Board,
    brief_text,
    duration_text,
    price_text,
    safe_text,
    size_text,
)
from rakefarm.events import (
    ActionFinished,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    CopyEnded,
    HostLeftOut,
    HostReady,
    QuoteReceived,
    SetStarted,
)


def queued(action, command="cc -c x.c"):
    return ActionQueued(action=action, set_name="build", line=12, command=command, remote=True)


def placed(action, host="lab1:6238", time_s=0.0, price=1.5):
    return ActionPlaced(action=action, host=host, price=price, time_s=time_s)


def finished(action, host="lab1:6238", outcome="succeeded", **fields):
    return ActionFinished(action=action, host=host, outcome=outcome, **fields)


def started(actions=10, hosts=("lab1:6238", "lab2:6238"), time_s=100.0):
    return BuildStarted(rakefile="Rakefile", actions=actions, sets=2, hosts=hosts, time_s=time_s)


def board_of(*events):
    board = Board()
    for event in events:
        board.apply(event)
    return board


def test_an_action_passes_through_its_phases():
    board = board_of(started(), queued(0))
    assert board.snapshot(100.0, 20).rows == ()  # waiting ones are only counted
    assert board.totals(100.0).waiting == 1
    board.apply(QuoteReceived(action=0, host="lab1:6238", price=3.0))
    board.apply(QuoteReceived(action=0, host="lab2:6238", price=2.0))
    board.apply(QuoteReceived(action=0, host="lab3:6238", price=None, reason="memory"))
    (row,) = board.snapshot(100.0, 20).rows
    assert (row.phase, row.price, row.elapsed_at(105.0)) == ("bidding", 2.0, None)
    board.apply(placed(0, time_s=101.0, price=2.0))
    board.apply(ActionPhase(action=0, host="lab1:6238", phase="running"))
    (row,) = board.snapshot(103.5, 20).rows
    assert (row.host, row.phase, row.elapsed_at(103.5)) == ("lab1:6238", "running", 2.5)
    ended = board.apply(finished(0, elapsed_s=3.0, bytes_sent=10, bytes_received=4))
    assert ended is not None and (ended.command, ended.line) == ("cc -c x.c", 12)
    (row,) = board.snapshot(200.0, 20).rows
    assert (row.phase, row.elapsed_at(200.0), row.bytes_sent) == ("succeeded", 3.0, 10)


def test_a_snapshot_does_not_change_afterwards():
    board = board_of(started(), queued(0), placed(0))
    before = board.snapshot(101.0, 20)
    board.apply(finished(0, elapsed_s=1.0))
    assert before.rows[0].phase == "placed" and before.hosts[0].running == 1


def test_rows_are_the_active_oldest_first_then_bidding_then_the_newest_ended():
    board = board_of(started(), *(queued(number) for number in range(6)))
    for number in (0, 1, 3, 2):
        board.apply(placed(number))
    board.apply(finished(0))
    board.apply(finished(1))
    board.apply(QuoteReceived(action=5, host="lab1:6238", price=1.0))
    assert [row.action for row in board.snapshot(0.0, 20).rows] == [3, 2, 5, 1, 0]
    assert [row.action for row in board.snapshot(0.0, 2).rows] == [3, 2]
    assert board.snapshot(0.0, 0).rows == ()
    assert board.open_rows() == 3


def test_hosts_add_up_and_those_left_out_come_last():
    board = board_of(
        started(),
        HostLeftOut(host="lab1:6238", reason="refused"),
        HostReady(host="lab2:6238", slots=4, server_version="1", isolation="none"),
        queued(0),
        queued(1),
        placed(0, "lab2:6238"),
        placed(1, "local", price=None),
        finished(0, "lab2:6238", elapsed_s=3.0, ran_s=2.0, bytes_sent=7, bytes_received=5),
    )
    hosts = board.snapshot(0.0, 0).hosts
    assert [(host.host, host.state) for host in hosts] == [
        ("lab2:6238", "ready"),
        ("local", "ready"),
        ("lab1:6238", "left out"),
    ]
    lab2 = hosts[0]
    assert (lab2.slots, lab2.running, lab2.done, lab2.busy_s) == (4, 0, 1, 2.0)
    assert (lab2.bytes_sent, lab2.bytes_received) == (7, 5)
    assert hosts[1].running == 1 and hosts[2].reason == "refused"


def test_a_retried_action_waits_again_and_frees_its_host():
    board = board_of(started(), queued(0), placed(0))
    board.apply(ActionRetried(action=0, host="lab1:6238", reason="lost"))
    assert board.snapshot(0.0, 20).hosts[0].running == 0
    assert (board.totals(0.0).waiting, board.totals(0.0).running) == (1, 0)
    board.apply(placed(0, "lab2:6238"))
    assert board.snapshot(0.0, 20).hosts[1].running == 1
    row = board.apply(finished(0, "lab2:6238"))
    assert row is not None and row.command == "cc -c x.c"


def copied():
    """A board with one action at two hosts."""
    board = board_of(started(), queued(0), placed(0))
    board.apply(ActionPlaced(action=0, host="lab2:6238", price=2.0, attempt=2, backup=True, time_s=103.0))
    return board


def running_at(board):
    return {host.host: host.running for host in board.snapshot(0.0, 0).hosts}


def test_an_action_with_a_copy_is_one_row_at_two_hosts():
    board = copied()
    assert running_at(board) == {"lab1:6238": 1, "lab2:6238": 1}
    (row,) = board.snapshot(0.0, 20).rows
    assert (row.host, row.copy_host) == ("lab1:6238", "lab2:6238")
    assert board.totals(0.0).running == 1
    board.apply(ActionPhase(action=0, host="lab2:6238", phase="sending"))
    assert board.snapshot(0.0, 20).rows[0].phase == "placed", "what is shown is the first's"


@pytest.mark.parametrize(("winner", "loser"), [("lab1:6238", "lab2:6238"), ("lab2:6238", "lab1:6238")])
def test_a_superseded_copy_counts_nowhere(winner: str, loser: str):
    board = copied()
    board.apply(CopyEnded(action=0, host=loser, reason="superseded"))
    assert running_at(board) == {winner: 1, loser: 0}
    (row,) = board.snapshot(0.0, 20).rows
    assert (row.host, row.copy_host) == (winner, "")
    board.apply(finished(0, winner))
    board.apply(CopyEnded(action=0, host=loser, reason="late"))
    assert running_at(board) == {winner: 0, loser: 0}
    assert (board.totals(0.0).succeeded, board.totals(0.0).running) == (1, 0)
    assert {host.host: host.done for host in board.snapshot(0.0, 0).hosts} == {winner: 1, loser: 0}


def test_an_action_that_ends_with_both_copies_running_frees_both_hosts():
    board = copied()
    board.apply(finished(0, "lab2:6238"))
    assert running_at(board) == {"lab1:6238": 0, "lab2:6238": 0}


def test_events_of_unknown_actions_are_harmless():
    board = board_of(started())
    board.apply(QuoteReceived(action=7, host="h", price=1.0))
    board.apply(ActionPhase(action=7, host="h", phase="running"))
    assert board.open_rows() == 0
    row = board.apply(finished(8, "", "not_run", detail="missing required file x.h"))
    assert row is not None and row.command == ""
    assert board.totals(101.0).not_run == 1


def test_totals_and_when_the_rest_can_be_told():
    board = board_of(started(actions=20), SetStarted(index=1, set_name="link", actions=20))
    for number in range(4):
        board.apply(finished(number))
    assert board.totals(110.0).remaining_s is None  # too few have ended
    board.apply(finished(4))
    assert board.totals(101.0).remaining_s is None  # too early
    totals = board.totals(110.0)
    assert (totals.done, totals.set_number, totals.sets, totals.elapsed_s) == (5, 2, 2, 10.0)
    assert totals.remaining_s == pytest.approx(30.0)
    board.apply(finished(5, outcome="failed"))
    assert board.totals(110.0).remaining_s is None  # later sets may never begin
    end = BuildFinished(exit_status=1, succeeded=5, failed=1, not_started=14, elapsed_s=12.0, time_s=112.0)
    board.apply(end)
    assert board.totals(500.0).elapsed_s == 12.0


def test_ten_thousand_actions_leave_only_the_recent_ones_and_snapshots_stay_cheap():
    board = board_of(started(actions=10_000), *(queued(number) for number in range(10_000)))
    for number in range(5_000):
        board.apply(placed(number))
    for number in range(2_000):
        board.apply(finished(number))
    looked_at = []

    class Watched(dict):
        def values(self):
            for row in super().values():
                looked_at.append(row.action)
                yield row

    board._active = Watched(board._active)
    assert len(board.snapshot(0.0, 20).rows) == 20
    assert looked_at == list(range(2_000, 2_020))
    for number in range(2_000, 10_000):
        board.apply(finished(number))
    rows = board.snapshot(0.0, 1000).rows
    assert len(rows) == RECENT_LIMIT and rows[0].action == 9_999


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (None, "-"),
        (0.0, "0.000"),
        (0.0004, "<0.001"),
        (0.0123, "0.012"),
        (0.5, "0.50"),
        (1.234, "1.23"),
        (9.999, "10.0"),
        (12.34, "12.3"),
        (123.4, "123"),
        (999.7, "1.00k"),
        (12_345.0, "12.3k"),
        (4e6, "4.00M"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (1e300, "1e+300"),
    ],
)
def test_prices(price, text):
    assert price_text(price) == text


@given(st.floats(min_value=0) | st.just(float("nan")))
def test_prices_fit_their_column(price):
    assert len(price_text(price)) <= 6


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (5 << 30, "5.0 GiB")],
)
def test_sizes(size, text):
    assert size_text(size) == text


@given(st.integers(min_value=0, max_value=1 << 53))
def test_sizes_fit_their_column(size):
    assert len(size_text(size)) <= 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0.0 s"),
        (0.0004, "<1 ms"),
        (0.04, "40 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1:00"),
        (75, "1:15"),
        (3599.6, "1:00:00"),
        (3700, "1:01:40"),
        (36_000, "10h00m"),
    ],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cc -c x.c", "cc -c x.c"),
        ("日本 naïve", "日本 naïve"),
        ("a\x1b[2Jb\nc\td\x7f", "a\\x1b[2Jb\\nc\\td\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\u200b", "a\\u202eb\\u200b"),
        ("\udcff", "\\udcff"),
    ],
)
def test_hostile_text_is_escaped(text, shown):
    assert safe_text(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_escaped_text_is_always_printable_and_encodable(text):
    assert safe_text(text).isprintable()
    safe_text(text).encode()


def test_a_huge_command_is_cut_before_it_is_escaped():
    text = brief_text("a" * 1_000_000 + "\x1b" * 10 + ".c", 40)
    assert len(text) < 200 and text.startswith("aaaa") and text.endswith(".c") and "..." in text


def test_the_rest_is_estimated_from_what_earlier_builds_say():
    board = Board()
    board.apply(BuildStarted(rakefile="R", actions=3, sets=1, hosts=("lab1:6238",), expected_s=20.0, time_s=100.0))
    assert board.totals(100.0).remaining_s is None  # no slots are known yet
    board.apply(HostReady(host="lab1:6238", slots=2, server_version="1", isolation="none"))
    assert board.totals(100.0).remaining_s == pytest.approx(10.0)  # 20 s of work for two slots
    for action, expected_s in ((1, 4.0), (2, 8.0)):
        board.apply(ActionQueued(action=action, set_name="s", line=1, command="cc", remote=True, expected_s=expected_s))
        board.apply(ActionPlaced(action=action, host="lab1:6238", price=1.0, time_s=100.0))
    board.apply(ActionFinished(action=1, host="lab1:6238", outcome="succeeded", time_s=102.0))
    # 4 s are done and 2 of 8 under way, where 4 could be; 14 are left at that rate and the one to begin with.
    assert board.totals(102.0).remaining_s == pytest.approx(14.0 / ((4 + 2 + 4) / (2 + 2)))
    assert board.totals(1000.0).remaining_s is not None
    board.apply(ActionFinished(action=2, host="lab1:6238", outcome="failed", time_s=103.0))
    assert board.totals(103.0).remaining_s is None
