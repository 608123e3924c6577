"""The price: its terms add up, it never falls when a machine gets busier, and what can't be had is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from rakefarm.market.bid import (
    GIB,
    STALE_AFTER_S,
    Bid,
    Coefficients,
    Commitments,
    Facilities,
    Job,
    Load,
    Refusal,
    bid,
    parse_size,
)

K = Coefficients()
IDLE = Load(cores=4, busy_cores=0.0, io_wait=0.0, memory_available=60 * GIB, memory_total=64 * GIB)
FREE = Commitments(slots=4, running=0, waiting=0, leased=0)
COMPILE = Job("compile")

counts = st.integers(0, 10_000)
shares = st.floats(0, 1)
loads = st.builds(
    Load,
    cores=st.integers(1, 512),
    busy_cores=st.floats(0, 512),
    io_wait=shares,
    memory_available=st.integers(K.memory_floor, 1 << 45),
    memory_total=st.just(1 << 45),
    age_s=st.floats(0, 1e9),
)
commitments = st.builds(Commitments, slots=st.integers(1, 4096), running=counts, waiting=counts, leased=counts)
jobs = st.builds(
    Job,
    kind=st.sampled_from(["compile", "link", "other", "unheard-of", ""]),
    needs=st.sampled_from([{}, {"cpu": "1"}, {"cpu": "0"}, {"cpu": "007"}]),
    input_bytes=st.integers(0, 1 << 62),
)


def price(job: Job = COMPILE, load: Load = IDLE, promised: Commitments = FREE, k: Coefficients = K) -> Bid:
    answer = bid(job, load, promised, Facilities(), k)
    assert isinstance(answer, Bid), answer
    return answer


def refusal(job: Job = COMPILE, load: Load = IDLE, **facilities: object) -> Refusal:
    answer = bid(job, load, FREE, Facilities(**facilities), K)  # type: ignore[arg-type]
    assert isinstance(answer, Refusal), answer
    return answer


def test_an_idle_machine_asks_the_base_price_alone() -> None:
    assert price() == Bid(price=0.5, seconds=0.5, terms={"base": 0.5, "congestion": 0.0})


def test_kinds_have_prices_of_their_own_and_an_unknown_one_is_other() -> None:
    prices = [price(Job(kind)).price for kind in ("other", "compile", "link", "what")]
    assert prices == [0.3, 0.5, 0.8, 0.3]


@given(jobs, loads, commitments)
def test_a_price_is_finite_and_above_zero_and_its_terms_add_up(job: Job, load: Load, promised: Commitments) -> None:
    answer = bid(job, load, promised, Facilities(), K)
    if isinstance(answer, Refusal):  # fewer cores than it needs
        assert answer.reason == "cpu"
        return
    assert 0 < answer.price < math.inf and 0 < answer.seconds < math.inf
    assert all(0 <= term < math.inf for term in answer.terms.values())
    assert math.isclose(sum(answer.terms.values()), answer.price)
    in_time = sum(answer.terms.get(name, 0.0) for name in ("base", "congestion", "waiting"))
    assert math.isclose(in_time, answer.seconds)


BUSIER = {
    "busy_cores": lambda load, more: structs.replace(load, busy_cores=load.busy_cores + more),
    "io_wait": lambda load, more: structs.replace(load, io_wait=min(1.0, load.io_wait + more)),
    "age_s": lambda load, more: structs.replace(load, age_s=load.age_s + more),
    "memory": lambda load, more: structs.replace(
        load, memory_available=max(K.memory_floor, load.memory_available - int(more * GIB))
    ),
    "cores": lambda load, more: structs.replace(load, cores=max(1, load.cores - int(more))),
}


@pytest.mark.parametrize("what", BUSIER)
@given(load=loads, promised=commitments, more=st.floats(0, 1000))
def test_a_busier_machine_is_not_cheaper(what: str, load: Load, promised: Commitments, more: float) -> None:
    before, after = price(load=load, promised=promised), price(load=BUSIER[what](load, more), promised=promised)
    assert after.price >= before.price * (1 - 1e-9)


@pytest.mark.parametrize("what", ["running", "waiting", "leased"])
@given(load=loads, promised=commitments, more=st.integers(0, 100))
def test_more_promises_are_not_cheaper(what: str, load: Load, promised: Commitments, more: int) -> None:
    committed = structs.replace(promised, **{what: getattr(promised, what) + more})
    assert price(load=load, promised=committed).price >= price(load=load, promised=promised).price * (1 - 1e-9)


def test_each_place_held_makes_the_next_quote_dearer_once_the_cores_are_taken() -> None:
    prices = [price(promised=structs.replace(FREE, leased=leased)).price for leased in range(8)]
    assert prices[:4] == [0.5] * 4, "a core each"
    assert prices[3:] == sorted(set(prices[3:])), "then every one more costs more"


def test_our_own_commands_are_not_counted_twice() -> None:
    """Two commands of ours keep two of four cores busy: the sample shows them, too."""
    ours = price(load=structs.replace(IDLE, busy_cores=2.0), promised=structs.replace(FREE, running=2))
    theirs = price(load=structs.replace(IDLE, busy_cores=4.0), promised=structs.replace(FREE, running=2))
    assert ours.price == price().price
    assert theirs.price > ours.price


def test_waiting_for_a_slot_is_a_term_of_its_own() -> None:
    full = structs.replace(FREE, running=4)
    terms = price(load=structs.replace(IDLE, busy_cores=4.0), promised=full).terms
    assert terms["waiting"] > 0 and "waiting" not in price().terms


def test_a_stale_sample_is_dear() -> None:
    assert "stale" not in price(load=structs.replace(IDLE, age_s=STALE_AFTER_S)).terms
    stale = price(load=structs.replace(IDLE, age_s=STALE_AFTER_S + 0.1))
    saturated = price(load=structs.replace(IDLE, busy_cores=4.0))
    assert stale.price > saturated.price


def test_memory_near_the_floor_is_dear_and_below_it_refused() -> None:
    near = structs.replace(IDLE, memory_available=K.memory_floor + (64 << 20))
    assert price(load=near).terms["memory"] == pytest.approx(0.5 * 4)
    below = structs.replace(IDLE, memory_available=K.memory_floor - 1)
    assert refusal(load=below).reason == "memory"


def test_two_cores_cost_more_than_one() -> None:
    assert price(Job("compile", {"cpu": "2"})).terms["resources"] > 0


@pytest.mark.parametrize(
    ("needs", "facilities", "reason"),
    [
        ({}, {"draining": True}, "draining"),
        ({}, {"disk_free": 999}, "disk"),
        ({"mem": "61G"}, {}, "memory"),
        ({"mem": "59.5G"}, {}, "memory"),
        ({"mem": ""}, {}, "memory"),
        ({"mem": "-1"}, {}, "memory"),
        ({"mem": "9" * 5000}, {}, "memory"),
        ({"cpu": "5"}, {}, "cpu"),
        ({"cpu": ""}, {}, "cpu"),
        ({"cpu": "two"}, {}, "cpu"),
        ({"cpu": "-1"}, {}, "cpu"),
        ({"cpu": "²"}, {}, "cpu"),
        ({"cpu": "0" * 9 + "9" * 400}, {}, "cpu"),
        ({"cpu": "9" * 5000}, {}, "cpu"),
        ({"tool": "gcc"}, {"tools": frozenset({"cc"})}, "tool"),
        ({"license": "acme"}, {"licenses": frozenset({"other"})}, "license"),
        ({"gpu": ""}, {}, "resource"),
        ({"": ""}, {}, "resource"),
    ],
)
def test_what_is_not_there_is_refused(needs: dict[str, str], facilities: dict[str, object], reason: str) -> None:
    answer = refusal(Job("compile", needs, 1000), **facilities)
    assert answer.reason == reason
    assert answer.text and "\n" not in answer.text


@pytest.mark.parametrize(
    ("needs", "facilities"),
    [
        ({"mem": "59G"}, {}),
        ({"mem": "1024"}, {}),
        ({"cpu": "4"}, {}),
        ({"cpu": "0" * 5000 + "4"}, {}),
        ({"tool": "gcc"}, {"tools": frozenset({"gcc"})}),
        ({"license": "acme"}, {"licenses": frozenset({"acme"})}),
        ({}, {"disk_free": 1000}),
    ],
)
def test_what_is_there_is_priced(needs: dict[str, str], facilities: dict[str, object]) -> None:
    answer = bid(Job("compile", needs, 1000), IDLE, FREE, Facilities(**facilities), K)  # type: ignore[arg-type]
    assert isinstance(answer, Bid)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1k", 1024),
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("", None),
        ("G", None),
        ("1.5G", None),
        ("-1", None),
        ("1 G", None),
        ("٣", None),
        ("9" * 16, None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@given(st.text())
def test_any_text_is_a_size_or_not(text: str) -> None:
    size = parse_size(text)
    assert size is None or size >= 0
