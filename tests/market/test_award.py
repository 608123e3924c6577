"""Whom the auction chooses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.market.award import Candidate, lowest

prices = st.floats(0, 1e9)
candidates = st.lists(st.builds(Candidate, host=st.just("h"), price=prices, transfer_s=prices), min_size=1)


def test_the_lowest_price_wins() -> None:
    assert lowest([Candidate("a", 3.0), Candidate("b", 1.0), Candidate("c", 2.0)]) == 1


def test_among_equals_the_first_reply_wins() -> None:
    assert lowest([Candidate("a", 2.0), Candidate("b", 1.0), Candidate("c", 1.0)]) == 1


def test_what_sending_costs_decides_with_the_price() -> None:
    assert lowest([Candidate("busy", 1.0, 0.0), Candidate("idle", 0.5, 0.6)]) == 0


def test_nobody_can_be_chosen_of_none() -> None:
    with pytest.raises(ValueError, match="empty"):
        lowest([])


@given(candidates)
def test_nobody_is_below_the_chosen_and_nobody_before_it_equal(offered: list[Candidate]) -> None:
    chosen = lowest(offered)
    assert all(offered[chosen].total <= each.total for each in offered)
    assert all(offered[chosen].total < each.total for each in offered[:chosen])
