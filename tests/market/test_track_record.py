"""How fast hosts turn out to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.market.track_record import SHORTEST_S, TrackRecord

positive = st.floats(0.001, 1000.0)


def test_a_host_is_believed_before_anything_is_known() -> None:
    assert TrackRecord().speed("a", 2.0) == pytest.approx(2.0)


def test_what_was_seen_outweighs_its_word() -> None:
    record = TrackRecord()
    record.learn("a", 1.0, 10.0)
    assert record.speed("a", 1.0) == pytest.approx(0.1, rel=0.1)
    assert record.speed("b", 1.0) == pytest.approx(1.0), "and says nothing of others"


def test_a_host_that_has_become_faster_is_believed_again() -> None:
    record = TrackRecord()
    for _ in range(20):
        record.learn("a", 1.0, 10.0)
    for _ in range(20):
        record.learn("a", 1.0, 0.5)
    assert record.speed("a", 2.0) > 1.0


def test_what_should_have_ended_counts_before_it_has() -> None:
    record = TrackRecord()
    assert record.speed("a", 1.0, [(2.0, 1.9)]) == pytest.approx(1.0), "on time"
    assert record.speed("a", 1.0, [(2.0, 20.0)]) == pytest.approx(0.1, rel=0.1)


def test_what_may_be_chance_is_no_reason_to_doubt_a_host() -> None:
    record = TrackRecord()
    record.learn("a", 3.0, 2.0)
    assert record.speed("a", 1.0) == 1.0, "predicted half as much again"
    record.learn("b", 1.0, 0.2)
    assert record.speed("b", 1.0) > 2.0
    assert record.speed("b", 1.0, [(9.0, 1.0)] * 7) == 1.0, "who ends first was predicted too long; the others run"


def test_a_moment_of_work_says_nothing() -> None:
    record = TrackRecord()
    record.learn("a", SHORTEST_S / 2, 5.0)
    record.learn("a", 5.0, SHORTEST_S / 2)
    assert record.speed("a", 1.0, [(0.0, 100.0)]) == pytest.approx(1.0)


@given(st.lists(st.tuples(positive, positive)), st.lists(st.tuples(positive, positive)), positive)
def test_a_speed_is_above_zero_and_within_what_was_said_and_seen(
    ended: list[tuple[float, float]], running: list[tuple[float, float]], said: float
) -> None:
    record = TrackRecord()
    for work_s, seconds in ended:
        record.learn("a", work_s, seconds)
    speeds = [said, *[work_s / seconds for work_s, seconds in ended + running]]
    speed = record.speed("a", said, running)
    assert 0.0 < min(speeds) * 0.999 <= speed <= max(speeds) * 1.001
