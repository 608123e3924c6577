"""The default policy plans when its hosts have answered, not when the nearest one has."""

import pytest
from market_vocabulary import HandView, curve, facts, make_jobs, waits_of, wakes_of

from rakefarm.market.plan import ANSWERS_S, PlanPolicy
from rakefarm.market.policy import HostDown, Quoted, SetStarted, Woken

FREE = curve(0.0)


@pytest.fixture
def view() -> HandView:
    return HandView()


@pytest.fixture
def plan(view: HandView) -> PlanPolicy:
    return PlanPolicy(view)


def test_the_nearest_host_does_not_get_the_longest_job_for_being_near(plan: PlanPolicy) -> None:
    (job,) = make_jobs(10.0)
    plan.handle(SetStarted((job,), facts("near", "far")))
    assert waits_of(plan.handle(Quoted(job, "near", 40.0, 40.0, curve(0.0, speed=0.25)))) == []
    assert waits_of(plan.handle(Quoted(job, "far", 5.0, 5.0, curve(0.0, speed=2.0)))) == ["far"]


def test_a_host_that_does_not_answer_holds_nobody_up(plan: PlanPolicy, view: HandView) -> None:
    (job,) = make_jobs(10.0)
    assert wakes_of(plan.handle(SetStarted((job,), facts("there", "silent")))) == [view.time_s + ANSWERS_S]
    plan.handle(Quoted(job, "there", 10.0, 10.0, FREE))
    view.time_s += ANSWERS_S
    assert waits_of(plan.handle(Woken())) == ["there"]


def test_nor_does_one_that_is_gone(plan: PlanPolicy) -> None:
    (job,) = make_jobs(10.0)
    plan.handle(SetStarted((job,), facts("there", "gone")))
    plan.handle(Quoted(job, "there", 10.0, 10.0, FREE))
    assert waits_of(plan.handle(HostDown("gone"))) == ["there"]
