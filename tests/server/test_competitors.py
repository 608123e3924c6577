"""Who competes for the cores: counted by session or by process, never our own, and seldom."""

import os

import pytest
from server_vocabulary import busy_process, wait_until

from rakefarm.server import competitors
from rakefarm.server.competitors import PERIOD_S, Competitors, Processes, competing, has_autogroups, processes

THERE: Processes = {
    1: (b"S", 0, 1),
    10: (b"R", 1, 10),  # one of another user's session
    11: (b"R", 10, 10),  # and another of it
    12: (b"R", 1, 12),
    13: (b"D", 1, 13),
    20: (b"S", 1, 20),  # our listener
    21: (b"R", 20, 20),
    22: (b"S", 21, 20),
    23: (b"R", 22, 23),  # a command, in a session of its own
    30: (b"R", 31, 30),  # whose parent is gone
    40: (b"R", 41, 40),  # read while numbers were used again
    41: (b"S", 40, 40),
}


@pytest.mark.parametrize(("by_session", "count"), [(True, 4), (False, 5)])
def test_the_runnable_of_others_compete(by_session: bool, count: int) -> None:
    assert competing(THERE, [20], by_session) == count


def test_all_compete_with_nobody() -> None:
    assert competing(THERE, [], by_session=False) == 7
    assert competing({}, [20], by_session=True) == 0


def test_a_spinning_process_is_found_with_its_session() -> None:
    with busy_process(spin) as pid:
        wait_until(lambda: processes()[pid] == (b"R", os.getpid(), pid))


def spin() -> None:
    os.setsid()
    while True:
        pass


def test_looks_are_few_and_smoothed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([4, 8, 2])
    monkeypatch.setattr(competitors, "competing", lambda there, ours, by_session: next(found))
    count = Competitors()
    assert [count.count([1], now) for now in (10.0, 10.0 + PERIOD_S / 2)] == [4.0, 4.0]
    assert count.count([1], 11.0) == 6.0, "half of the newest"
    assert count.count([1], 100.0) == 2.0, "what is long ago says nothing"


def test_whether_sessions_share_is_read_from_the_kernel() -> None:
    assert has_autogroups() in (True, False)
