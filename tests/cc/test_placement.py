"""Which host gets the next compile."""

import threading
from collections.abc import Mapping

import pytest

from rakefarm.cc.placement import AHEAD, Placement
from rakefarm.client.farm import Farm, Member
from rakefarm.config import ClientSettings
from rakefarm.events import Stream
from rakefarm.hosts import Host
from rakefarm.market.curve import Curve


def placement_of(slots: Mapping[str, int]) -> Placement:
    """Over hosts that nobody connects to."""
    farm = Farm([], ClientSettings(), {}, Stream("run", []))
    farm.members = [Member(Host(name, 1), name, slots=count, cores=count, ready=True) for name, count in slots.items()]
    return Placement(farm)


def take(
    placement: Placement, work_s: float = 1.0, lacking: object = None, excluded: frozenset[str] = frozenset()
) -> str:
    place = placement.acquire(lacking, work_s, excluded, lambda: False)
    return place.member.name if place is not None else ""


def curve(speed: float, running: int = 0) -> Curve:
    return Curve(2, 2, speed, 0.0, 0.0, running, 0, 1, 10.0, (0.0, 0.0))


def test_slots_are_filled_first_and_each_host_takes_one_more() -> None:
    placement = placement_of({"a": 1, "b": 2})
    assert placement.room == 3 + 2 * AHEAD
    assert sorted(take(placement) for _ in range(3)) == ["a", "b", "b"]
    assert sorted(take(placement) for _ in range(2)) == ["a", "b"]


def test_the_faster_host_is_preferred_and_others_work_there_counts() -> None:
    placement = placement_of({"slow": 2, "fast": 2})
    for place in placement._places:
        place.in_flight += 1
        placement.release(place, curve(3.0 if place.member.name == "fast" else 1.0))
    assert take(placement) == "fast"
    for place in placement._places:
        place.in_flight += 1
        placement.release(place, curve(3.0, running=20) if place.member.name == "fast" else curve(1.0))
    assert take(placement) == "slow"


def test_a_host_that_lacks_something_is_asked_for_other_things() -> None:
    placement = placement_of({"a": 4})
    place = placement.acquire("gcc", 1.0, (), lambda: False)
    assert place is not None
    placement.note_lacking(place, "gcc")
    assert take(placement, lacking="gcc") == ""
    assert take(placement, lacking="clang") == "a"
    assert take(placement, lacking="clang", excluded=frozenset({"a"})) == ""


def test_a_host_with_a_problem_is_not_waited_for() -> None:
    placement = placement_of({"a": 1, "b": 1})
    placement._places[0].member.problem = "no sign of life"
    placement._places[0].member.asked_again_at = float("inf")
    assert take(placement) == "b"
    placement._places[1].member.problem = "gone"
    placement._places[1].member.asked_again_at = float("inf")
    assert take(placement) == ""


def test_calls_beyond_the_farm_wait_in_turn() -> None:
    placement = placement_of({"a": 1})
    first = [placement.acquire(None, 1.0, (), lambda: False) for _ in range(1 + AHEAD)]
    order: list[int] = []
    waiting = []
    for number in range(3):
        thread = threading.Thread(target=lambda number=number: (take(placement), order.append(number)))
        thread.start()
        waiting.append(thread)
        while len(placement._queue) <= number:
            pass
    for place in [*first, placement._places[0]]:
        assert place is not None
        placement.release(place, None)
    for thread in waiting:
        thread.join(10.0)
    assert sorted(order) == [0, 1, 2]


@pytest.mark.parametrize("hosts", [{}, {"a": 1}])
def test_nobody_is_waited_for_once_the_caller_is_gone(hosts: dict[str, int]) -> None:
    placement = placement_of(hosts)
    for _ in range(1 + AHEAD if hosts else 0):
        take(placement)
    assert placement.acquire(None, 1.0, (), lambda: True) is None


def test_the_same_compile_comes_to_the_same_host_where_that_costs_nothing() -> None:
    def first(name: bytes, hosts: Mapping[str, int]) -> str:
        place = placement_of(hosts).acquire(None, 1.0, (), lambda: False, name)
        return place.member.name if place is not None else ""

    names = [b"%d" % number for number in range(40)]
    chosen = [first(name, {"a": 2, "b": 2, "c": 2}) for name in names]
    assert chosen == [first(name, {"c": 2, "b": 2, "a": 2}) for name in names]
    assert set(chosen) == {"a", "b", "c"}
    placement = placement_of({"a": 1, "b": 1})
    drawn = {take(placement), take(placement)}
    assert drawn == {"a", "b"}, "one that is busy is not waited for"
