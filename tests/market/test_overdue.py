"""A command that runs longer than expected makes nobody wait less than nothing."""

import pytest

from rakefarm.market.bid import GIB, Bid, Coefficients, Commitments, Job, Load, bid
from rakefarm.market.curve import free_times
from rakefarm.market.needs import Facilities

IDLE = Load(cores=4, busy=0.0, io_wait=0.0, memory_available=60 * GIB, memory_total=64 * GIB)


@pytest.mark.parametrize("overdue_s", [0.0, 1.0, 3600.0])
@pytest.mark.parametrize("ahead", range(4))
def test_an_overdue_command_leaves_a_price_above_zero(overdue_s: float, ahead: int) -> None:
    promised = Commitments(slots=2, running=2, waiting=ahead, leased=0, ends_in_s=(-overdue_s, -overdue_s / 2))
    answer = bid(Job("compile"), IDLE, promised, Facilities(), Coefficients())
    assert isinstance(answer, Bid)
    assert answer.price > 0 and answer.terms["wait"] > 0
    assert answer.seconds > bid(Job("compile"), IDLE, Commitments(4, 2, 0, 0), Facilities(), Coefficients()).seconds  # type: ignore[union-attr]


def test_an_overdue_commands_slot_is_not_free_yet() -> None:
    assert all(time > 0 for time in free_times(2, [-5.0, -1.0], 0, 0.5))
