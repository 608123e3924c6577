"""A host's speed, as its actions teach it, and how its faults are forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.market.speed import FASTEST, SHORTEST_S, SLOWEST, decayed, learn_speed

speeds = st.floats(SLOWEST, FASTEST)
times = st.floats(0, 1e9)
shares = st.floats(0, 1)


def learned(speed: float, count: int, work_s: float, elapsed_s: float, share: float = 1.0) -> float:
    for _ in range(count):
        speed = learn_speed(speed, work_s, elapsed_s, share)
    return speed


@pytest.mark.parametrize("true_speed", [0.1, 0.5, 1.0, 2.0, 20.0])
def test_many_actions_teach_the_true_speed(true_speed: float) -> None:
    assert learned(1.0, 150, 4.0, 4.0 / true_speed) == pytest.approx(true_speed, rel=0.01)


def test_twenty_actions_go_most_of_the_way() -> None:
    assert 1.8 < learned(1.0, 20, 4.0, 2.0) < 2.0


def test_an_action_that_had_half_a_core_is_no_sign_of_a_slow_host() -> None:
    assert learn_speed(1.0, 2.0, 4.0, 0.5) == 1.0


def test_twice_and_half_weigh_alike() -> None:
    assert learned(learned(1.0, 1, 2.0, 1.0), 1, 1.0, 1.0) < learned(1.0, 1, 2.0, 1.0)
    assert learn_speed(1.0, 2.0, 1.0, 1.0) * learn_speed(1.0, 1.0, 2.0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("work_s", "elapsed_s", "share"),
    [
        (SHORTEST_S / 2, 1.0, 1.0),
        (1.0, SHORTEST_S / 2, 1.0),
        (1.0, 1.0, 0.0),
        (1.0, 1.0, 5e-324),
        (1.0, 1.0, -1.0),
        (0.0, 5.0, 1.0),
    ],
)
def test_what_says_nothing_changes_nothing(work_s: float, elapsed_s: float, share: float) -> None:
    assert learn_speed(1.5, work_s, elapsed_s, share) == 1.5


def test_one_wrong_prediction_moves_it_little() -> None:
    assert learn_speed(1.0, 1e6, 1.0, 1.0) == learn_speed(1.0, 3.0, 1.0, 1.0) < 1.15


@given(speeds, times, times, shares)
def test_a_speed_stays_within_its_bounds(speed: float, work_s: float, elapsed_s: float, share: float) -> None:
    assert SLOWEST <= learn_speed(speed, work_s, elapsed_s, share) <= FASTEST


@given(speeds, st.floats(0.02, 1e6), st.floats(0.02, 1e6), st.floats(0.01, 1))
def test_it_moves_towards_what_was_seen(speed: float, work_s: float, elapsed_s: float, share: float) -> None:
    seen, after = work_s / (elapsed_s * share), learn_speed(speed, work_s, elapsed_s, share)
    if seen >= speed:
        assert after >= speed * (1 - 1e-9)
    else:
        assert after <= speed * (1 + 1e-9)


def test_faults_halve_in_each_half_life() -> None:
    assert [decayed(8.0, age, 120.0) for age in (0.0, 120.0, 240.0)] == [8.0, 4.0, 2.0]
    assert decayed(3.0, -5.0, 120.0) == 3.0, "a clock that was read earlier"
    assert decayed(3.0, 1.0, 0.0) == pytest.approx(0.0)


@given(st.floats(0, 1e6), times, times, st.floats(0, 1e6))
def test_faults_only_get_fewer(faults: float, age_s: float, later_s: float, half_life_s: float) -> None:
    left = decayed(faults, age_s, half_life_s)
    assert 0.0 <= decayed(faults, age_s + later_s, half_life_s) <= left <= faults
