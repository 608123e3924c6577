"""The statistics: their definitions on small examples, and what holds for any numbers."""

import math
import statistics as standard

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.market.statistics import bias, fairness, median, median_error, rank_correlation, ranks

above_zero = st.floats(1e-6, 1e6)
few_values = st.integers(1, 5).map(float)  # so that ties are common
pairs = st.lists(st.tuples(above_zero, above_zero), min_size=1, max_size=40)
tied_pairs = st.lists(st.tuples(few_values, few_values), min_size=1, max_size=40)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_the_median_is_the_standard_one(values: list[float]) -> None:
    assert median(values) == pytest.approx(standard.median(values))


def test_the_median_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        median([])


def test_of_nothing_nothing_is_said() -> None:
    assert median_error([]) is bias([]) is rank_correlation([]) is fairness([]) is None


def test_examples() -> None:
    assert median_error([(1.5, 1.0), (1.0, 2.0), (4.0, 1.0)]) == 0.5
    assert bias([(2.0, 1.0), (1.0, 2.0), (3.0, 1.0)]) == pytest.approx(2.0)
    assert ranks([30.0, 10.0, 20.0, 10.0]) == [4.0, 1.5, 3.0, 1.5]
    # Spearman's own way for distinct ranks: 1 - 6 Σd² / (n (n² - 1)), here with Σd² = 6.
    assert rank_correlation([(1, 2), (2, 1), (3, 4), (4, 3), (5, 6), (6, 5)]) == pytest.approx(1 - 6 * 6 / (6 * 35))
    # With ties: Pearson's of (1.5, 1.5, 3) and (1, 2, 3).
    assert rank_correlation([(1, 1), (1, 2), (2, 3)]) == pytest.approx(math.sqrt(3) / 2)
    assert fairness([1.0, 1.0, 1.0]) == 1.0
    assert fairness([1.0, 3.0]) == pytest.approx(16 / 20)
    assert fairness([0.0, 0.0]) is None


@given(st.lists(few_values, max_size=40))
def test_ranks_are_shared_out_fairly(values: list[float]) -> None:
    found = ranks(values)
    assert sum(found) == len(values) * (len(values) + 1) / 2
    for value, rank in zip(values, found, strict=True):
        smaller, equal = sum(other < value for other in values), values.count(value)
        assert rank == smaller + (equal + 1) / 2


@given(tied_pairs | pairs)
def test_rank_correlation_is_bounded_and_symmetric(some: list[tuple[float, float]]) -> None:
    found = rank_correlation(some)
    swapped = rank_correlation([(other, one) for one, other in some])
    if found is None:
        assert swapped is None and (len({one for one, _ in some}) == 1 or len({other for _, other in some}) == 1)
    else:
        assert swapped is not None
        assert -1.0 <= found <= 1.0 and found == pytest.approx(swapped)
        turned = rank_correlation([(one, -other) for one, other in some])
        assert turned == pytest.approx(-found)


@given(tied_pairs)
def test_only_the_order_counts(some: list[tuple[float, float]]) -> None:
    assert rank_correlation([(one**3, math.exp(other)) for one, other in some]) == rank_correlation(some)


@given(st.lists(above_zero, min_size=2, max_size=40, unique=True))
def test_what_rises_with_it_correlates_fully(values: list[float]) -> None:
    assert rank_correlation([(value, value) for value in values]) == 1.0
    assert rank_correlation([(value, -value) for value in values]) == -1.0


@given(pairs)
def test_error_and_bias_of_right_bids(some: list[tuple[float, float]]) -> None:
    right = [(realised, realised) for _, realised in some]
    assert median_error(right) == 0.0 and bias(right) == 1.0


@given(pairs, st.floats(0.01, 100.0))
def test_bids_that_are_all_wrong_by_a_factor(some: list[tuple[float, float]], factor: float) -> None:
    wrong = [(realised * factor, realised) for _, realised in some]
    assert bias(wrong) == pytest.approx(factor)
    assert median_error(wrong) == pytest.approx(abs(factor - 1), abs=1e-9)


@given(pairs)
def test_bias_is_the_same_seen_from_either_side(some: list[tuple[float, float]]) -> None:
    there, back = bias(some), bias([(realised, bid) for bid, realised in some])
    assert there is not None and back is not None
    assert there * back == pytest.approx(1.0)


@given(st.lists(st.floats(0.0, 1e300), min_size=1, max_size=40))
def test_fairness_lies_between_one_nth_and_one(values: list[float]) -> None:
    found = fairness(values)
    if any(values):
        assert found is not None
        assert 1 / len(values) - 1e-9 <= found <= 1 + 1e-9
    else:
        assert found is None


@given(st.lists(above_zero, min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_fairness_knows_no_unit_and_no_order(values: list[float], factor: float) -> None:
    found = fairness(values)
    assert fairness([value * factor for value in reversed(values)]) == pytest.approx(found)


@given(st.integers(1, 30), st.integers(0, 30))
def test_fairness_of_some_who_share_all_is_their_part(sharing: int, without: int) -> None:
    assert fairness([1.0] * sharing + [0.0] * without) == pytest.approx(sharing / (sharing + without))
