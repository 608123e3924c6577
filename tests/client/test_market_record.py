"""What is noted down of hosts: their load now and then, and the terms of what is awarded."""

import pytest
from msgspec import structs

from rakefarm.client.market_record import LOAD_EVERY_S, MarketRecord
from rakefarm.events import Event, HostLoad
from rakefarm.market.curve import Curve
from rakefarm.wire.messages import Offer, Term

CURVE = Curve(4, 2, 1.5, 0.5, 2.5, 2, 1, 7, 1.0, (0.5, 2.0), 3.25, 1 << 30, 0.05)
OFFER = Offer(2.0, 1.5, (Term("run", 1.5), Term("owner", 0.5)), 0, 1.0, CURVE)


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def record(told: list[Event]) -> MarketRecord:
    return MarketRecord(told.append)


def test_a_load_is_what_the_curve_says(record: MarketRecord, told: list[Event]) -> None:
    record.curve("lab1", CURVE, 10.0)
    assert told == [
        HostLoad(
            host="lab1",
            cores=4,
            busy=0.5,
            busy_in_all=2.5,
            running=2,
            waiting=1,
            speed=1.5,
            load_average=3.25,
            memory_available_bytes=1 << 30,
            sample_age_s=0.05,
        )
    ]


def test_each_host_is_noted_now_and_then(record: MarketRecord, told: list[Event]) -> None:
    for host in ("lab1", "lab2"):
        for step in range(25):
            record.offer(host, "task", OFFER, 10.0 + step * LOAD_EVERY_S / 10)
    assert [event.host for event in told if isinstance(event, HostLoad)] == ["lab1"] * 3 + ["lab2"] * 3


def test_the_terms_of_an_award_add_up_to_its_price(record: MarketRecord) -> None:
    record.offer("lab1", "task", OFFER, 0.0)
    assert record.terms("lab1", "task", 6.0) == {"run": 4.5, "owner": 1.5}
    record.offer("lab1", "task", structs.replace(OFFER, price=1.0, terms=(Term("run", 1.0),)), 0.0)
    assert record.terms("lab1", "task", 6.0) == {"run": 6.0}, "the last one counts"
    assert record.terms("lab1", "task", 6.0, 4.0) == {"run": 2.0, "slowness": 4.0}
    assert record.terms("lab1", "other", 6.0) == {} == record.terms("lab2", "task", 6.0)
