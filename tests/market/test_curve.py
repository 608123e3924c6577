"""The price curve: how fast commands run that share a machine, and when its slots come free."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from rakefarm.market.curve import LEAST_S, LONGEST_LIST, Curve, free_times, rate

CURVE = Curve(
    cores=4, slots=4, speed=1.0, busy=0.0, busy_in_all=0.0, running=0, waiting=0, version=1, valid_s=1.0, free_in_s=()
)

slots = st.integers(1, 200)
ends = st.lists(st.floats(-1e6, 1e6), max_size=100)
reserved = st.integers(0, 1000)
runs = st.floats(1e-6, 1e5)


@pytest.mark.parametrize(
    ("speed", "cores", "busy", "commands", "expected"),
    [
        (1.0, 4, 0.0, 1, 1.0),
        (1.0, 4, 0.0, 4, 1.0),
        (1.0, 4, 0.0, 8, 0.5),
        (1.0, 4, 4.0, 4, 0.5),
        (2.0, 1, 3.0, 1, 0.5),
        (3.0, 4, 0.0, 0, 3.0),
        (1.0, 2, 0.5, 2, 0.8),
    ],
)
def test_commands_and_others_share_the_cores(
    speed: float, cores: int, busy: float, commands: int, expected: float
) -> None:
    assert rate(speed, cores, busy, commands) == pytest.approx(expected)


@given(st.floats(0.02, 50), st.integers(1, 512), st.floats(0, 512), st.integers(0, 10_000))
def test_a_rate_is_above_zero_and_at_most_the_speed_and_falls_with_company(
    speed: float, cores: int, busy: float, commands: int
) -> None:
    found = rate(speed, cores, busy, commands)
    assert 0 < found <= speed
    assert rate(speed, cores, busy, commands + 1) <= found
    assert rate(speed, cores, busy + 1, commands) <= found
    assert rate(speed, cores + 1, busy, commands) >= found


def test_free_slots_are_those_that_are_free_now() -> None:
    assert structs.replace(CURVE, free_in_s=(0.0, 0.0, 0.001, 2.0)).free_slots == 2
    assert CURVE.free_slots == 0


@pytest.mark.parametrize(
    ("slot_count", "ends_in_s", "promised", "expected"),
    [
        (2, [], 0, (0.0, 0.0)),
        (2, [3.0], 0, (0.0, 3.0)),
        (2, [3.0, 1.0], 0, (1.0, 3.0)),
        (2, [3.0], 1, (0.5, 3.0)),
        (2, [3.0, 1.0], 1, (1.5, 3.0)),
        (2, [3.0, 1.0], 5, (3.0, 3.5)),
        (2, [-7.0, 0.5], 0, (0.5, 7.0)),
        (1, [0.0], 0, (LEAST_S,)),
        (1, [1.0, 2.0, 3.0], 0, (1.0,)),
        (3, [0.2], 3, (0.5, 0.5, 0.7)),
    ],
)
def test_examples(slot_count: int, ends_in_s: list[float], promised: int, expected: tuple[float, ...]) -> None:
    assert free_times(slot_count, ends_in_s, promised, 0.5) == pytest.approx(expected)


@given(slots, ends, reserved, runs)
def test_times_are_sorted_and_never_negative_and_one_a_slot(
    slot_count: int, ends_in_s: list[float], promised: int, run_s: float
) -> None:
    times = free_times(slot_count, ends_in_s, promised, run_s)
    assert len(times) == min(slot_count, LONGEST_LIST)
    assert list(times) == sorted(times)
    assert all(time >= 0.0 for time in times)


@given(slots, ends, runs)
def test_as_many_are_free_as_nobody_uses(slot_count: int, ends_in_s: list[float], run_s: float) -> None:
    free = max(0, slot_count - len(ends_in_s))
    assert free_times(slot_count, ends_in_s, 0, run_s).count(0.0) == min(free, LONGEST_LIST)


@given(slots, ends, reserved, st.integers(1, 20), runs)
def test_reserved_places_push_later(
    slot_count: int, ends_in_s: list[float], promised: int, more: int, run_s: float
) -> None:
    before = free_times(slot_count, ends_in_s, promised, run_s)
    after = free_times(slot_count, ends_in_s, promised + more, run_s)
    assert all(later >= earlier for earlier, later in zip(before, after, strict=True))


@given(st.integers(1, LONGEST_LIST), st.lists(st.floats(0.01, 10), max_size=64), runs)
def test_a_place_for_each_slot_leaves_none_free(slot_count: int, ends_in_s: list[float], run_s: float) -> None:
    assert 0.0 not in free_times(slot_count, ends_in_s, slot_count, run_s)
