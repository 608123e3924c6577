"""Who competes for the cores: counted by session or by process, never our own, and seldom."""

import os
import signal

import pytest
from server_vocabulary import busy_process, wait_until

from rakefarm.server import competitors
from rakefarm.server.competitors import PERIOD_S, Competitors, competing, has_autogroups


def spin() -> None:
    os.setsid()
    while True:
        pass


def spin_twice() -> None:
    os.setsid()
    os.fork()
    while True:
        pass


def counts(by_session: bool, *ours: int) -> int:
    return competing(ours, by_session)


def test_a_spinning_process_of_another_session_competes() -> None:
    with busy_process(spin) as pid:
        wait_until(lambda: counts(True) - counts(True, pid) == 1 and counts(False) - counts(False, pid) == 1)


def test_a_session_counts_once_where_the_scheduler_shares_among_sessions() -> None:
    with busy_process(spin_twice) as pid:
        try:
            wait_until(lambda: counts(False) - counts(False, pid) == 2)
            wait_until(lambda: counts(True) - counts(True, pid) == 1)
        finally:
            os.killpg(pid, signal.SIGKILL)


def test_looks_are_few_and_smoothed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([4, 8, 2])
    monkeypatch.setattr(competitors, "competing", lambda ours, by_session: next(found))
    count = Competitors()
    assert [count.count([1], now) for now in (10.0, 10.0 + PERIOD_S / 2)] == [4.0, 4.0]
    assert count.count([1], 11.0) == 6.0, "half of the newest"
    assert count.count([1], 100.0) == 2.0, "what is long ago says nothing"


def test_whether_sessions_share_is_read_from_the_kernel() -> None:
    assert has_autogroups() in (True, False)
