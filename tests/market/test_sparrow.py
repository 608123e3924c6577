"""Batch sampling with late binding: places in two queues an action, and whoever has a slot first gets one."""

import pytest
from market_vocabulary import HandView, awards_of, curve, facts, make_jobs, of_kind, waits_of

from rakefarm.market.policy import Declined, HostDown, Job, Lost, SetStarted, SlotFree, WakeAt, Woken
from rakefarm.market.sparrow import PAUSE_S, PROBES, SLOTS_AHEAD, SparrowPolicy

FREE = curve(0.0, speed=2.0)


@pytest.fixture
def view() -> HandView:
    return HandView()


@pytest.fixture
def sparrow(view: HandView) -> SparrowPolicy:
    return SparrowPolicy(view)


def test_each_job_has_places_in_two_queues(sparrow: SparrowPolicy, view: HandView) -> None:
    view.chances.extend([0.0, 0.99, 0.5, 0.0])
    assert waits_of(sparrow.handle(SetStarted(make_jobs(1.0, 1.0), facts("a", "b", "c")))) == ["a", "c", "b", "a"]


def test_with_one_host_there_is_one_place(sparrow: SparrowPolicy) -> None:
    assert waits_of(sparrow.handle(SetStarted(make_jobs(1.0), facts("a")))) == ["a"]


def test_who_has_a_slot_first_gets_the_first_job(sparrow: SparrowPolicy) -> None:
    jobs = make_jobs(4.0, 1.0)
    sparrow.handle(SetStarted(jobs, facts("a", "b")))
    (award,) = sparrow.handle(SlotFree("b", FREE, jobs[1]))
    assert awards_of([award]) == [(0, "b")], "not the one that the place was for"
    assert award.seconds == award.price == pytest.approx(2.0)  # type: ignore[attr-defined]
    assert awards_of(sparrow.handle(SlotFree("b", FREE, jobs[0]))) == [(1, "b")]
    assert list(sparrow.handle(SlotFree("a", FREE, jobs[0]))) == [], "a place too many is given up"


def test_another_sort_of_job_has_places_of_its_own(sparrow: SparrowPolicy) -> None:
    jobs = (Job(0, 1.0, "plain"), Job(1, 1.0, "licensed", "acme"))
    sparrow.handle(SetStarted(jobs, facts("a")))
    assert awards_of(sparrow.handle(SlotFree("a", FREE, jobs[1]))) == [(1, "a")]


def test_places_are_bounded_by_the_slots(sparrow: SparrowPolicy) -> None:
    jobs = make_jobs(*[1.0] * 100)
    waits = waits_of(sparrow.handle(SetStarted(jobs, facts("a", "b", slots=3))))
    assert len(waits) == PROBES * SLOTS_AHEAD * 6
    (award, *more) = sparrow.handle(SlotFree("a", FREE, jobs[0]))
    assert awards_of([award]) == [(0, "a")] and waits_of(more) == ["a", "b"], "the next job's"


def test_who_declines_for_good_is_not_tried_again(sparrow: SparrowPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    sparrow.handle(SetStarted(jobs, facts("a", "b")))
    assert waits_of(sparrow.handle(Declined(job, "a", lasting=True))) == [], "there is the other place"
    assert waits_of(sparrow.handle(HostDown("b"))) == []
    assert waits_of(sparrow.handle(Woken())) == []


def test_who_declines_for_the_moment_is_tried_again(sparrow: SparrowPolicy, view: HandView) -> None:
    (job,) = jobs = make_jobs(1.0)
    sparrow.handle(SetStarted(jobs, facts("a")))
    effects = sparrow.handle(Declined(job, "a", lasting=False))
    assert of_kind(effects, WakeAt) == [WakeAt(view.time_s + PAUSE_S)] and waits_of(effects) == []
    assert waits_of(sparrow.handle(Woken())) == ["a"]


def test_what_is_lost_goes_elsewhere(sparrow: SparrowPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    sparrow.handle(SetStarted(jobs, facts("a", "b")))
    sparrow.handle(SlotFree("a", FREE, job))
    assert waits_of(sparrow.handle(Lost(job, "a"))) == ["b"]
    assert awards_of(sparrow.handle(SlotFree("a", FREE, job))) == []
    assert awards_of(sparrow.handle(SlotFree("b", FREE, job))) == [(0, "b")]


def test_places_at_a_host_that_is_down_are_taken_elsewhere(sparrow: SparrowPolicy, view: HandView) -> None:
    jobs = make_jobs(1.0, 1.0)
    view.chances.extend([0.0, 0.0, 0.0, 0.0])
    assert waits_of(sparrow.handle(SetStarted(jobs, facts("a", "b", "c")))) == ["a", "b", "a", "b"]
    sparrow.handle(HostDown("a"))
    assert waits_of(sparrow.handle(HostDown("b"))) == ["c", "c"]
