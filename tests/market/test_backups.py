"""Copies of overdue jobs: when, where, how many; and whose end counts."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_vocabulary import (
    HandView,
    World,
    awards_of,
    backups_of,
    curve,
    facts,
    make_jobs,
    waits_of,
    wakes_of,
)

from rakefarm.market.backups import Backups, Run
from rakefarm.market.plan import PlanPolicy
from rakefarm.market.policies import POLICIES
from rakefarm.market.policy import Event, Finished, Job, Lost, Quoted, Refused, SetStarted, SlotFree, Superseded, Woken

FREE = curve(0.0)
FREE_LATER = curve(0.0, version=2)


class Played:
    """One job of 2 s that runs on host a; b is free and as fast, and nothing else is to be done. It is late after
    1.25 × 2 + 0.25 = 2.75 s; a copy of 2 s is worth it then, since as long again is expected."""

    def __init__(self, view: HandView, policy: PlanPolicy, repeatable: bool = True) -> None:
        self.view, self.policy = view, policy
        self.began_s = view.time_s
        (self.job,) = jobs = make_jobs(2.0, repeatable=repeatable)
        self.tell(SetStarted(jobs, facts("a", "b")))
        self.tell(Quoted(self.job, "a", 2.0, 2.0, FREE))
        self.tell(Quoted(self.job, "b", 2.0, 2.0, FREE))
        assert awards_of(self.tell(SlotFree("a", FREE, self.job))) == [(0, "a")]
        self.wakes = wakes_of(self.tell(Woken(), after_s=0.3))

    def tell(self, event: Event, after_s: float | None = None) -> list[object]:
        if after_s is not None:
            self.view.time_s = self.began_s + after_s
        return list(self.policy.handle(event))

    def back_up(self) -> None:
        assert waits_of(self.tell(Woken(), after_s=2.752)) == ["b"]
        assert backups_of(self.tell(SlotFree("b", FREE_LATER, self.job))) == [(0, "b")]


@pytest.fixture
def view() -> HandView:
    return HandView()


@pytest.fixture
def played(view: HandView) -> Played:
    return Played(view, PlanPolicy(view))


def test_where_slots_are_idle_what_is_late_has_a_copy(played: Played) -> None:
    assert played.wakes == [pytest.approx(played.began_s + 2.75, abs=0.01)]
    assert waits_of(played.tell(Woken(), after_s=2.749)) == [], "it may well end within the 2 s that a copy takes"
    played.back_up()


def test_what_is_not_repeatable_has_no_copy(view: HandView) -> None:
    played = Played(view, PlanPolicy(view), repeatable=False)
    assert played.wakes == []
    assert waits_of(played.tell(Woken(), after_s=100.0)) == []


def test_without_backups_there_are_none(view: HandView) -> None:
    policy = POLICIES["plan-no-backups"](view)
    assert isinstance(policy, PlanPolicy)
    assert waits_of(Played(view, policy).tell(Woken(), after_s=100.0)) == []


def test_a_copy_is_not_worth_it_where_it_takes_too_long(view: HandView) -> None:
    policy = PlanPolicy(view)
    played = Played(view, policy)
    played.tell(Quoted(played.job, "b", 2.0, 2.0, curve(30.0, version=2, running=1)), after_s=3.0)
    assert waits_of(played.tell(Woken(), after_s=10.0)) == []
    assert waits_of(played.tell(Woken(), after_s=19.0)) == [], "14 s until the slot is free and 2 s of work"
    assert waits_of(played.tell(Woken(), after_s=20.0)) == ["b"], "13 s, and 2"


def test_a_slot_that_comes_too_late_is_given_up(played: Played) -> None:
    assert waits_of(played.tell(Woken(), after_s=4.001)) == ["b"]
    played.tell(Finished(played.job, "a", 4.1, curve(1.0, version=2)), after_s=4.1)
    assert played.tell(SlotFree("b", FREE_LATER, played.job)) == []


def test_there_is_one_copy_and_none_of_the_copy(played: Played) -> None:
    played.back_up()
    for after_s in (5.0, 50.0, 500.0):
        effects = played.tell(Woken(), after_s=after_s)
        assert waits_of(effects) == backups_of(effects) == awards_of(effects) == []


@pytest.mark.parametrize(("winner", "loser"), ["ab", "ba"])
@pytest.mark.parametrize("late", [False, True])
def test_whichever_ends_first_is_the_job(played: Played, winner: str, loser: str, late: bool) -> None:
    played.back_up()
    ends: list[Event] = [Superseded(played.job, loser), Finished(played.job, winner, 4.2, curve(0.0, version=3))]
    for event in reversed(ends) if late else ends:
        effects = played.tell(event, after_s=4.2)
        assert waits_of(effects) == backups_of(effects) == awards_of(effects) == []


@pytest.mark.parametrize(("gone", "left"), ["ab", "ba"])
def test_when_one_is_lost_the_other_is_the_job(played: Played, gone: str, left: str) -> None:
    played.back_up()
    effects = played.tell(Lost(played.job, gone), after_s=4.2)
    assert waits_of(effects) == awards_of(effects) == []
    effects = played.tell(Finished(played.job, left, 4.2, FREE_LATER), after_s=8.0)
    assert waits_of(effects) == awards_of(effects) == []


def test_when_both_are_lost_it_is_awarded_again(played: Played) -> None:
    played.back_up()
    assert waits_of(played.tell(Lost(played.job, "a"))) == []
    assert waits_of(played.tell(Lost(played.job, "b"))) != []


def test_a_copy_that_is_refused_is_no_job_that_waits(played: Played) -> None:
    played.back_up()
    effects = played.tell(Refused(played.job, "b", curve(9.0, version=3, running=1)))
    assert awards_of(effects) == waits_of(effects) == []


# --- how many ---------------------------------------------------------------------------------------------


def run_of(number: int, host: str, repeatable: bool = True) -> Run:
    return Run(Job(number, 1.0, "task", repeatable=repeatable), host, 0.0, 1.0, 0.0, 0.0)


def test_one_award_in_ten_rounded_up() -> None:
    backups = Backups(allowed=True)
    copies = 0
    for number in range(100):
        backups.begin(run_of(number, "a"))
        while overdue := backups.worth(10.0, False, {}):
            backups.begin(run_of(overdue[0][0].job.number, "b"))
            copies += 1
        assert copies == math.ceil((number + 1) / 10)


def test_what_was_overdue_first_comes_first() -> None:
    backups = Backups(allowed=True)
    for number, (since_s, bid_s) in enumerate([(5.0, 1.0), (0.0, 1.0), (0.0, 9.0)]):
        backups.begin(Run(Job(number, 1.0, "task", repeatable=True), "a", since_s, bid_s, 0.0, 0.0))
    assert [run.job.number for run, _ in backups.worth(8.0, False, {})] == [1, 0]
    assert backups.next_overdue_s(8.0) == 14.0
    assert backups.next_overdue_s(15.0) == math.inf


def test_while_jobs_wait_for_slots_only_what_is_overdue_has_a_copy() -> None:
    backups = Backups(allowed=True)
    backups.begin(Run(Job(0, 1.0, "task", repeatable=True), "a", 0.0, 2.0, 0.0, 0.0))
    assert backups.next_look_s(0.0, idle=False) == pytest.approx(3.5)
    assert backups.worth(3.4, False, {}) == []
    assert [most_s for _, most_s in backups.worth(4.0, False, {})] == [pytest.approx(2.0)], "half of what it took"


def test_what_gains_little_has_no_copy() -> None:
    backups = Backups(allowed=True)
    for number, bid_s in enumerate([10.0, 8.0, 1.0]):
        backups.begin(Run(Job(number, bid_s, "task", repeatable=True), "a", 0.0, bid_s, 0.0, 0.0))
    assert [run.job.number for run, _ in backups.worth(0.0, True, {})] == [0, 1]


def test_a_host_that_is_slower_than_was_believed_is_not_waited_for_however_many_copies_there_are() -> None:
    backups = Backups(allowed=True)
    for number in range(3):
        backups.begin(Run(Job(number, 4.0, "task", repeatable=True), "a", 0.0, 4.0, 0.0, 4.0, speed=1.0))
    backups.begin(run_of(0, "b"))
    assert backups.worth(2.0, False, {"a": 0.9}) == []
    doubted = backups.worth(2.0, False, {"a": 0.25})
    assert [run.job.number for run, _ in doubted] == [1, 2]
    assert all(most_s == pytest.approx(0.8 * 14.0) for _, most_s in doubted), "16 s in all, 2 of them over"


SPEEDS = st.tuples(st.integers(1, 3), st.floats(0.2, 5.0), st.sampled_from([1.0, 1.0, 0.3, 0.05, 3.0]))


@settings(max_examples=60, deadline=None)
@given(
    hosts=st.lists(SPEEDS, min_size=1, max_size=5),
    works=st.lists(st.floats(0.01, 5.0), min_size=1, max_size=30),
    clients=st.integers(1, 3),
    known=st.booleans(),
    latency_s=st.sampled_from([0.0, 0.001, 0.05]),
)
def test_of_hosts_that_are_what_they_say_one_award_in_ten_is_a_copy_at_the_most_and_whatever_they_do_all_is_done(
    hosts: list[tuple[int, float, float]], works: list[float], clients: int, known: bool, latency_s: float
) -> None:
    world = World(PlanPolicy, {f"h{index}": host[:2] for index, host in enumerate(hosts)}, clients, latency_s)
    for (_, speed, truth), host in zip(hosts, world.hosts.values(), strict=True):
        host.true_speed = speed * truth
    jobs = make_jobs(*works, repeatable=True, known=known)
    world.run(jobs)
    for client in world.clients:
        first_awards = {number for number, _ in client.awards}
        assert first_awards == {job.number for job in jobs}
        if all(truth >= 1.0 for _, _, truth in hosts):
            assert len(client.copies) <= math.ceil(len(client.awards) / 10)
        assert len({number for number, _ in client.copies}) == len(client.copies)


def test_a_host_that_is_far_slower_than_it_says_does_not_hold_up_the_set() -> None:
    took = {}
    for name in ("plan", "plan-no-backups"):
        world = World(POLICIES[name], {"a": (2, 1.0), "b": (2, 1.0), "c": (2, 1.0)})
        world.hosts["a"].true_speed = 0.05
        took[name] = world.run(make_jobs(*[1.0] * 12, repeatable=True, known=True))
    assert took["plan"] < 6.0 < took["plan-no-backups"]


def test_the_first_host_dies_while_the_copy_runs() -> None:
    world = World(PlanPolicy, {"a": (1, 2.0), "b": (1, 1.0)})
    world.hosts["a"].true_speed = 0.001
    world.at(3.5, world.hosts["a"].go_down)
    assert world.run(make_jobs(1.0, repeatable=True)) < 5.0
    (client,) = world.clients
    assert client.copies == [(0, "b")] and len(client.awards) == 1
