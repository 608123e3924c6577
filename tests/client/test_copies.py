"""Two copies of an action: one wins, whatever comes at the same time."""

import threading
from collections.abc import Callable

import pytest

from rakefarm.client.copies import STOP_S, Copies, Losers, Superseded


class FakeLink:
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def give_up(self) -> None:
        self.done.append("given up")

    def cut(self) -> None:
        self.done.append("cut")


class Told:
    """How often somebody was told to stop."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, copies: Copies) -> None:
        assert copies.left
        self.count += 1


def running(*hosts: str, told: Callable[[Copies], None] | None = None) -> tuple[Copies, dict[str, FakeLink]]:
    copies = Copies(told or Told())
    links = {host: FakeLink() for host in hosts}
    for host, link in links.items():
        copies.enter(host)
        copies.start(host, lambda: None)
        copies.connect(host, link)  # type: ignore[arg-type]
    return copies, links


def test_the_first_wins_and_the_other_is_stopped() -> None:
    told = Told()
    copies, links = running("a", "b", told=told)
    assert copies.win("b") == ["a"]
    assert links["a"].done == ["given up"] and links["b"].done == [] and told.count == 1
    with pytest.raises(Superseded):
        copies.win("a")
    with pytest.raises(Superseded):
        copies.leave("a")
    assert not copies.left


def test_who_runs_alone_wins_without_a_word() -> None:
    told = Told()
    copies, links = running("a", told=told)
    assert copies.win("a") == [] and links["a"].done == [] and told.count == 0


def test_who_leaves_hears_whether_another_runs() -> None:
    copies, links = running("a", "b")
    assert copies.leave("a") is True
    assert copies.leave("b") is False
    assert links["a"].done == links["b"].done == []


def test_who_has_won_and_then_leaves_leaves_the_action_to_nobody() -> None:
    copies, _ = running("a", "b")
    copies.win("a")
    assert copies.leave("a") is False


def test_a_link_that_serves_something_else_by_now_is_left_alone() -> None:
    copies, links = running("a", "b")
    copies.disconnect("a")
    copies.win("b")
    assert copies.cut() == []
    assert links["a"].done == []


def test_what_is_over_does_not_begin() -> None:
    copies, _ = running("a")
    copies.enter("b")
    assert copies.win("a") == [], "it has not begun, so there is nothing to tell of"
    said: list[str] = []
    with pytest.raises(Superseded):
        copies.start("b", lambda: said.append("placed"))
    with pytest.raises(Superseded):
        copies.connect("b", FakeLink())  # type: ignore[arg-type]
    assert said == []


def test_who_does_not_stop_in_time_is_cut_off() -> None:
    changes: list[int] = []
    losers = Losers(lambda: changes.append(1))
    copies, links = running("a", "b", told=losers.watch)
    copies.win("a")
    (until,) = losers.due()
    assert losers and changes
    assert losers.cut_overdue(until - 0.01) == []
    assert losers.cut_overdue(until) == ["b"] and links["b"].done == ["given up", "cut"]
    assert losers.due() == [] and not losers


def test_who_stops_in_time_is_waited_for_no_longer() -> None:
    losers = Losers(lambda: None)
    copies, _ = running("a", "b", told=losers.watch)
    copies.win("a")
    with pytest.raises(Superseded):
        copies.leave("b")
    losers.ended(copies)
    assert not losers and STOP_S <= 2.0


def test_of_many_at_one_moment_exactly_one_wins() -> None:
    for _ in range(50):
        copies, links = running("a", "b")
        barrier = threading.Barrier(2)
        won: list[str] = []

        def finish(
            host: str, copies: Copies = copies, barrier: threading.Barrier = barrier, won: list[str] = won
        ) -> None:
            barrier.wait()
            try:
                copies.win(host)
                won.append(host)
            except Superseded:
                pass

        threads = [threading.Thread(target=finish, args=(host,)) for host in links]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
