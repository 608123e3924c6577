"""The default policy plans when its hosts have answered, not when the nearest one has."""

import pytest
from market_vocabulary import HandView, curve, facts, make_jobs, waits_of, wakes_of

from rakefarm.market.plan import ANSWERS_S, PlanPolicy
from rakefarm.market.policy import HostDown, Job, Quoted, SetStarted, Wait, Woken

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


@pytest.mark.parametrize(("guess_s", "first"), [(2.0, 2), (1.0, 1)])
def test_a_guess_begins_before_what_is_known_to_be_a_little_longer(
    plan: PlanPolicy, guess_s: float, first: int
) -> None:
    sure, unsure = Job(1, 3.0, "cc", known=True), Job(2, guess_s, "cc")
    plan.handle(SetStarted((sure, unsure), facts("fast", "slow")))
    plan.handle(Quoted(sure, "slow", 3.0, 3.0, curve(0.0, speed=1.0)))
    effects = plan.handle(Quoted(sure, "fast", 1.0, 1.0, curve(0.0, speed=3.0)))
    assert [effect.job.number for effect in effects if isinstance(effect, Wait) and effect.host == "fast"] == [first]
