"""What an action costs beyond its command decides between here and there."""

import pytest
from market_vocabulary import HandView, curve, facts, make_jobs, waits_of

from rakefarm.market.policies import POLICIES
from rakefarm.market.policy import Quoted, SetStarted


@pytest.mark.parametrize(
    ("policy", "work_s", "where"),
    [
        pytest.param("plan-break-even", 0.1, "local", id="short ones stay"),
        pytest.param("plan-break-even", 2.0, "lab", id="long ones go"),
        pytest.param("plan", 0.1, "lab", id="plan looks at the speed alone"),
    ],
)
def test_where_an_action_breaks_even(policy: str, work_s: float, where: str) -> None:
    """The other machine is twice as fast, and an action there takes 0.2 s more than its command."""
    view = HandView()
    view.overheads = {"lab": 0.2}
    chosen = POLICIES[policy](view)
    (job,) = make_jobs(work_s)
    chosen.handle(SetStarted((job,), facts("local", "lab")))
    here, there = curve(0.0, speed=1.0), curve(0.0, speed=2.0)
    effects = [*chosen.handle(Quoted(job, "local", work_s, work_s, here))]
    effects += chosen.handle(Quoted(job, "lab", work_s / 2, work_s / 2, there))
    assert waits_of(effects)[-1] == where


def test_the_overhead_is_told_once() -> None:
    view = HandView()
    view.overheads = {"lab": 0.2}
    from rakefarm.market.overheads import WithOverheads

    (job,) = make_jobs(1.0)
    both = WithOverheads(view)
    assert (both.transfer_s(job, "lab"), both.transfer_s(job, "local"), both.overhead_s("lab")) == (0.2, 0.0, 0.0)
    assert WithOverheads(both).transfer_s(job, "lab") == 0.2
