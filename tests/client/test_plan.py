"""The plan's bookkeeping: numbers, which set may start, and that every action is counted once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.client.plan import Outcome, Plan
from rakefarm.client.rakefile_model import Action, ActionSet, Rakefile


def plan_of(*sizes: int, keep_going: bool = False) -> Plan:
    """A plan of sets with so many actions each."""
    sets = tuple(
        ActionSet(f"set{index}", 1, tuple(Action(f"command {number}", True, number) for number in range(size)))
        for index, size in enumerate(sizes)
    )
    return Plan(Rakefile("Rakefile", 6238, (), sets, ()), keep_going)


def run(plan: Plan, outcomes: dict[int, Outcome]) -> list[int]:
    """Walk the plan; answers the sets that started. Actions not in `outcomes` succeed."""
    started = []
    for planned in plan.sets_to_run():
        started.append(planned.index)
        for action in planned.actions:
            plan.finished(action.number, outcomes.get(action.number, Outcome.SUCCEEDED))
    return started


def test_actions_are_numbered_through_the_file() -> None:
    plan = plan_of(2, 0, 3)
    assert [[action.number for action in planned.actions] for planned in plan.sets] == [[1, 2], [], [3, 4, 5]]
    assert [planned.index for planned in plan.sets] == [0, 1, 2]
    assert plan.total == 5
    assert plan.sets[2].actions[0].set_name == "set2"


def test_sets_run_in_order_while_all_succeed() -> None:
    plan = plan_of(2, 1, 3)
    assert run(plan, {}) == [0, 1, 2]
    assert plan.count(Outcome.SUCCEEDED) == 6
    assert plan.not_started == 0
    assert plan.all_succeeded


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.NOT_RUN])
def test_a_failure_lets_its_siblings_finish_and_stops_later_sets(outcome: Outcome) -> None:
    plan = plan_of(1, 3, 2)
    assert run(plan, {2: outcome}) == [0, 1]
    assert (plan.count(Outcome.SUCCEEDED), plan.count(outcome), plan.not_started) == (3, 1, 2)
    assert not plan.all_succeeded


def test_keep_going_starts_every_set() -> None:
    plan = plan_of(1, 1, 1, keep_going=True)
    assert run(plan, {1: Outcome.FAILED, 2: Outcome.NOT_RUN}) == [0, 1, 2]
    assert plan.not_started == 0


def test_empty_sets_are_passed() -> None:
    assert run(plan_of(0, 1, 0), {}) == [0, 1, 2]
    assert run(plan_of(), {}) == []


def test_the_next_set_waits_for_the_last() -> None:
    plan = plan_of(2, 1)
    sets = plan.sets_to_run()
    next(sets)
    plan.finished(1, Outcome.SUCCEEDED)
    with pytest.raises(AssertionError):
        next(sets)


def test_an_action_ends_once() -> None:
    plan = plan_of(1)
    plan.finished(1, Outcome.SUCCEEDED)
    with pytest.raises(AssertionError):
        plan.finished(1, Outcome.FAILED)


@given(
    st.lists(st.integers(0, 4), max_size=6),
    st.dictionaries(st.integers(1, 24), st.sampled_from(Outcome)),
    st.booleans(),
)
def test_every_action_is_counted_once(sizes: list[int], outcomes: dict[int, Outcome], keep_going: bool) -> None:
    plan = plan_of(*sizes, keep_going=keep_going)
    started = run(plan, outcomes)
    assert sum(plan.count(outcome) for outcome in Outcome) + plan.not_started == plan.total == sum(sizes)
    assert started == list(range(len(started)))
    if keep_going or plan.all_succeeded:
        assert len(started) == len(sizes)
