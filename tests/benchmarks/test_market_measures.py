"""The arithmetic of `benchmarks/market.py`, against cases worked out by hand."""

import math
from typing import Any

import pytest
from market_measures import (
    Attempt,
    Capacity,
    Interval,
    attempts_of,
    bid_error,
    bids_against_times,
    client_bound,
    herd_index,
    jain_index,
    lower_bound,
    rank_correlation,
    until_truly_free,
)

STEADY = Capacity(steps=((0.0, 4.0),), fastest=2.0)
HALVED = Capacity(steps=((0.0, 4.0), (3.0, 2.0)), fastest=2.0)


@pytest.mark.parametrize(
    ("capacity", "work", "seconds"),
    [
        (STEADY, 20.0, 5.0),
        (HALVED, 8.0, 2.0),  # done before half of it is lost
        (HALVED, 12.0, 3.0),  # just
        (HALVED, 20.0, 7.0),  # 12 in the first three seconds, 8 at 2 a second
        (Capacity(((0.0, 4.0), (1.0, 0.0)), 2.0), 5.0, math.inf),
    ],
)
def test_the_whole_farm_takes(capacity: Capacity, work: float, seconds: float) -> None:
    assert capacity.seconds_for(work) == seconds


def test_a_client_is_bound_by_its_longest_action_or_by_all_its_work_set_by_set() -> None:
    # 6 on a core of speed 2 takes 3 s, although 7 / 4 is less; 16 / 4 takes 4 s, although 2 / 2 is less.
    assert client_bound([[6.0, 1.0], [2.0] * 8], STEADY) == 3.0 + 4.0


def test_the_lower_bound_is_the_work_of_all_or_the_longest_client() -> None:
    even = [[2.0] * 8], [[2.0] * 8]
    assert lower_bound(even, STEADY) == 8.0
    assert lower_bound(even, HALVED) == 13.0  # 12 of 32 in three seconds, 20 at 2 a second
    assert lower_bound(([[10.0], [10.0]], [[1.0]]), STEADY) == 10.0  # each 10 / 2, against 21 / 4 together


SLOTS = {"one": 1, "two": 2}


def test_an_award_is_herded_when_its_host_is_full_and_another_is_not() -> None:
    attempts = [
        Attempt("one", "a", 0.0, 5.0),
        Attempt("one", "b", 1.0, 6.0),  # full, two has room: herded
        Attempt("two", "c", 2.0, 3.0),
        Attempt("two", "d", 2.5, 9.0),  # its second slot
        Attempt("two", "e", 2.7, 9.0),  # full, and so is one
        Attempt("two", "f", 4.0, 9.0),  # c has gone, but e has come
        Attempt("two", "g", 7.0, 9.0),  # full, one has been free since 6: herded
        Attempt("one", "h", 7.5, 9.0),
    ]
    assert herd_index(attempts, SLOTS, {}) == 2 / 8
    assert herd_index(reversed(attempts), SLOTS, {}) == 2 / 8
    assert herd_index(attempts, SLOTS, {"one": 6.5}) == 1 / 8  # g had nowhere else to go
    assert herd_index([], SLOTS, {}) == 0.0


def test_a_slot_is_free_again_at_the_moment_that_its_command_ends() -> None:
    attempts = [Attempt("one", "a", 0.0, 1.0), Attempt("one", "b", 1.0, 2.0)]
    assert herd_index(attempts, SLOTS, {}) == 0.0
    late = Attempt("one", "a", 0.0, 1.5)
    assert until_truly_free(late, {("one", "a"): [Interval(0.1, 1.0)]}).ended_s == 1.0
    assert until_truly_free(late, {("two", "a"): [Interval(0.1, 1.0)]}).ended_s == 1.5
    assert until_truly_free(late, {("one", "a"): [Interval(0.1, 1.6)]}).ended_s == 1.5


def test_jain_index() -> None:
    assert jain_index([2.0, 2.0, 2.0, 2.0]) == 1.0
    assert jain_index([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain_index([1.0, 3.0]) == 0.8  # 16 / (2 × 10)


def test_bid_error_is_the_median_share_of_what_it_took() -> None:
    assert bid_error([(1.0, 2.0), (3.0, 2.0), (2.0, 2.0), (9.0, 1.0), (2.2, 2.0)]) == 0.5
    assert bid_error([]) is None


def test_rank_correlation() -> None:
    assert rank_correlation([(1.0, 10.0), (2.0, 20.0), (5.0, 21.0)]) == pytest.approx(1.0)
    assert rank_correlation([(1.0, 30.0), (2.0, 20.0), (5.0, 10.0)]) == pytest.approx(-1.0)
    # Ranks 0, 1.5, 1.5, 3 and 0, 2, 1, 3: the sum of products about the means is 4.5, of squares 4.5 and 5.
    shared = [(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (7.0, 9.0)]
    assert rank_correlation(shared) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert rank_correlation([(1.0, 1.0), (1.0, 2.0)]) is None


def event(time_s: float, name: str, action: int, **fields: Any) -> dict[str, Any]:
    return {"event": name, "time_s": time_s, "action": action, **fields}


QUEUED = [event(0.0, "action_queued", 0, command="work 1 t0"), event(0.0, "action_queued", 1, command="work 1 t1")]


def quote(time_s: float, action: int, host: str, seconds: float | None) -> dict[str, Any]:
    return event(time_s, "quote_received", action, host=host, seconds=seconds)


def test_attempts_end_with_a_retry_or_with_their_action() -> None:
    records = [
        *QUEUED,
        quote(0.5, 0, "one", 2.0),
        quote(0.5, 0, "two", None),
        event(1.0, "action_placed", 0, host="one"),
        event(1.5, "action_placed", 1, host="local"),
        event(2.0, "action_retried", 0, host="one"),
        quote(2.5, 0, "two", 4.0),
        event(3.0, "action_placed", 0, host="two"),
        event(6.0, "action_finished", 0, host="two", outcome="succeeded"),
        event(6.5, "action_finished", 1, host="local", outcome="succeeded"),
    ]
    attempts = attempts_of(records)
    assert attempts == [
        Attempt("one", "t0", 1.0, 2.0, 2.0, succeeded=False),
        Attempt("two", "t0", 3.0, 6.0, 4.0, succeeded=True),
    ]
    assert bids_against_times(attempts) == [(4.0, 3.0)]


def test_a_copy_elsewhere_ends_with_its_action_and_only_the_winner_succeeds() -> None:
    records = [
        *QUEUED,
        event(1.0, "action_placed", 0, host="one", seconds=1.0),
        event(4.0, "action_placed", 0, host="two", seconds=0.5),
        event(5.0, "action_finished", 0, host="two", outcome="succeeded"),
        event(5.5, "action_placed", 1, host="one", seconds=1.0),
        event(6.0, "build_finished", 0),
    ]
    assert attempts_of(records) == [
        Attempt("one", "t0", 1.0, 5.0, 1.0, succeeded=False),
        Attempt("two", "t0", 4.0, 5.0, 0.5, succeeded=True),
        Attempt("one", "t1", 5.5, 6.0, 1.0, succeeded=False),  # cut off
    ]
