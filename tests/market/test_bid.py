"""The price: its terms add up, it never falls when a machine gets busier, and what can't be had is refused."""

import math
import statistics
import time

import pytest
from bid_vocabulary import BUSIER, EVERYTHING, check_not_lower, commitments, jobs, loads, standings
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from rakefarm.market.bid import (
    GIB,
    LONGEST_WORK_S,
    STALE_AFTER_S,
    Bid,
    Coefficients,
    Commitments,
    Job,
    Load,
    Standing,
    bid,
    curve_of,
    refuse,
    work_of,
)
from rakefarm.market.needs import Facilities, Refusal

K = Coefficients()
IDLE = Load(cores=4, busy=0.0, io_wait=0.0, memory_available=60 * GIB, memory_total=64 * GIB)
FREE = Commitments(slots=4, running=0, waiting=0, leased=0)
COMPILE = Job("compile")
NORMAL = Standing()


def price(
    job: Job = COMPILE,
    load: Load = IDLE,
    promised: Commitments = FREE,
    standing: Standing = NORMAL,
    k: Coefficients = K,
) -> Bid:
    answer = bid(job, load, promised, EVERYTHING, k, standing)
    assert isinstance(answer, Bid), answer
    return answer


def refusal(job: Job = COMPILE, load: Load = IDLE, **facilities: object) -> Refusal:
    answer = bid(job, load, FREE, Facilities(**facilities), K)  # type: ignore[arg-type]
    assert isinstance(answer, Refusal), answer
    return answer


def running(count: int, *ends_in_s: float, slots: int = 4) -> Commitments:
    return Commitments(slots=slots, running=count, waiting=0, leased=0, ends_in_s=ends_in_s)


# --- examples ---------------------------------------------------------------------------------------------


def test_an_idle_machine_asks_for_the_work_alone() -> None:
    answer = price()
    assert (answer.price, answer.seconds, answer.terms) == (0.5, 0.5, {"run": 0.5})
    assert bid(COMPILE, IDLE, FREE, EVERYTHING, K) == answer, "a host of no standing is the reference"


def test_kinds_have_work_of_their_own_and_an_unknown_one_is_other() -> None:
    prices = [price(Job(kind)).price for kind in ("other", "compile", "link", "what")]
    assert prices == [0.3, 0.5, 0.8, 0.3]


def test_the_base_of_a_kind_weighs_in_the_price_and_not_in_the_seconds() -> None:
    k = structs.replace(K, base={"compile": 3.0, "other": 1.0})
    answer = price(promised=running(4, 1.0, 1.0, 1.0, 1.0), k=k)
    assert answer.seconds == pytest.approx(1.0 + 0.5 * 5 / 4)
    assert answer.terms == pytest.approx({"run": 3 * 0.5 * 5 / 4, "wait": 3.0})
    assert price(Job("link"), k=k).price == 0.8


def test_the_clients_prediction_counts_instead_of_the_default() -> None:
    assert price(Job("compile", work_s=3.0)).seconds == 3.0
    assert work_of(Job("compile", work_s=1e9), K) == LONGEST_WORK_S
    assert work_of(Job("link"), K) == K.work["link"]


def test_a_fast_host_takes_less() -> None:
    assert price(standing=Standing(speed=2.0)).seconds == 0.25
    assert price(standing=Standing(speed=0.5)).price == 1.0


def test_other_peoples_work_takes_its_fair_share() -> None:
    """Four cores, five runnable: each gets four fifths of a core."""
    assert price(load=structs.replace(IDLE, busy=4.0)).seconds == pytest.approx(0.5 * 5 / 4)
    assert price(load=structs.replace(IDLE, busy=3.0)).seconds == 0.5, "a core is left"
    assert price(load=structs.replace(IDLE, busy_in_all=4.0)) == structs.replace(
        price(), curve=structs.replace(price().curve, busy_in_all=4.0)
    ), "our own are not counted twice"


def test_each_place_held_makes_the_next_quote_dearer_once_the_cores_are_taken() -> None:
    prices = [price(promised=structs.replace(FREE, leased=leased)).price for leased in range(8)]
    assert prices[:4] == [0.5] * 4, "a core each"
    assert prices[3:] == sorted(set(prices[3:])), "then every one more costs more"


def test_waiting_for_a_slot_is_a_term_of_its_own() -> None:
    assert "wait" not in price(promised=running(3, 1.0, 2.0, 3.0)).terms
    full = running(4, 1.0, 2.0, 3.0, 4.0)
    assert price(promised=full).terms["wait"] == 1.0, "the next release"
    assert price(promised=structs.replace(full, waiting=1)).terms["wait"] == 2.0, "that goes to who waits already"
    assert price(promised=structs.replace(full, leased=2)).terms["wait"] == 3.0


def test_a_stale_sample_is_dear() -> None:
    assert "stale" not in price(load=structs.replace(IDLE, age_s=STALE_AFTER_S)).terms
    stale = price(load=structs.replace(IDLE, age_s=STALE_AFTER_S + 0.1))
    saturated = price(load=structs.replace(IDLE, busy=4.0))
    assert stale.price > saturated.price and stale.seconds == price().seconds


def test_memory_near_the_floor_is_dear_and_below_it_refused() -> None:
    near = structs.replace(IDLE, memory_available=K.memory_floor + (64 << 20))
    assert price(load=near).terms["memory"] == pytest.approx(0.5 * 4)
    below = structs.replace(IDLE, memory_available=K.memory_floor - 1)
    assert refusal(load=below).reason == "memory"


def test_memory_that_the_action_took_before_must_be_there() -> None:
    roomy = structs.replace(IDLE, memory_available=K.memory_floor + GIB)
    assert isinstance(bid(Job("link", memory_bytes=GIB), roomy, FREE, EVERYTHING, K), Bid)
    answer = refusal(Job("link", memory_bytes=GIB + 1), roomy)
    assert answer.reason == "memory" and "1024" in answer.text


def test_disk_must_have_room_for_the_inputs_and_the_floor() -> None:
    job = Job("compile", input_bytes=1000)
    assert refusal(job, disk_free=K.disk_floor + 999).reason == "disk"
    assert isinstance(bid(job, IDLE, FREE, Facilities(disk_free=K.disk_floor + 1000), K), Bid)


@pytest.mark.parametrize("needs", [(("mem", "1T"), ("mem", "1")), (("mem", "1"), ("mem", "1T"))])
def test_a_resource_that_is_named_twice_must_be_there_both_times(needs: tuple[tuple[str, str], ...]) -> None:
    assert refusal(Job("compile", needs), memory_available=1 << 33).reason == "memory"


def test_draining_comes_before_every_other_reason() -> None:
    answer = refuse(Job("compile", (("gpu", ""),)), IDLE, Facilities(draining=True), K)
    assert answer is not None and answer.reason == "draining"


def test_two_cores_take_as_long_as_the_machine_has_them() -> None:
    two = Job("compile", (("cpu", "2"),))
    assert price(two).price == price().price
    busy = structs.replace(IDLE, busy=3.0)
    assert price(two, busy).price > price(load=busy).price


@pytest.mark.parametrize(
    ("term", "job", "load", "standing"),
    [
        ("license", Job("compile", (("license", "acme"),)), IDLE, NORMAL),
        ("owner", COMPILE, structs.replace(IDLE, owner_idle_s=10.0), NORMAL),
        ("quiet", COMPILE, IDLE, Standing(quiet=True)),
        ("faults", COMPILE, IDLE, Standing(faults=1.0)),
        ("io_wait", COMPILE, structs.replace(IDLE, io_wait=0.5), NORMAL),
    ],
)
def test_surcharges_have_names_and_leave_the_prediction_alone(
    term: str, job: Job, load: Load, standing: Standing
) -> None:
    answer = price(job, load, standing=standing)
    assert set(answer.terms) == {"run", term} and answer.terms[term] > 0
    assert answer.price > price().price and answer.seconds == price().seconds


def test_an_owner_who_is_away_costs_nothing() -> None:
    assert price(load=structs.replace(IDLE, owner_idle_s=K.owner_idle_s)) == price()


def test_a_bid_carries_the_curve_that_it_was_read_from() -> None:
    load = structs.replace(IDLE, busy=1.0, busy_in_all=3.0)
    promised = Commitments(slots=4, running=2, waiting=1, leased=1, ends_in_s=(0.25, 9.0))
    curve = price(load=load, promised=promised, standing=Standing(speed=2.0, version=7)).curve
    assert (curve.cores, curve.slots, curve.speed, curve.busy, curve.busy_in_all) == (4, 4, 2.0, 1.0, 3.0)
    assert (curve.running, curve.waiting, curve.version) == (3, 1, 7)
    assert len(curve.free_in_s) == 4 and curve.free_slots == 0, "two run, two are promised"
    assert curve == curve_of(load, promised, Standing(speed=2.0, version=7), 0.25 * 6 / 4)


# --- what holds for every bid -----------------------------------------------------------------------------


@given(jobs, loads, commitments, standings)
def test_a_price_is_finite_and_above_zero_and_its_terms_add_up(
    job: Job, load: Load, promised: Commitments, standing: Standing
) -> None:
    answer = price(job, load, promised, standing)
    assert 0 < answer.price < math.inf and 0 < answer.seconds < math.inf
    assert all(0 <= term < math.inf for term in answer.terms.values())
    assert math.isclose(math.fsum(answer.terms.values()), answer.price)
    in_time = answer.terms["run"] + answer.terms.get("wait", 0.0)
    assert math.isclose(in_time, answer.seconds), "the base of every kind is 1"
    assert all(0 <= time < math.inf for time in answer.curve.free_in_s) and answer.curve.free_in_s


@pytest.mark.parametrize("what", BUSIER)
@given(job=jobs, load=loads, promised=commitments, more=st.floats(0, 1000))
def test_a_busier_machine_is_not_cheaper(what: str, job: Job, load: Load, promised: Commitments, more: float) -> None:
    check_not_lower(price(job, load, promised), price(job, BUSIER[what](load, more), promised))


@pytest.mark.parametrize("what", ["running", "waiting", "leased"])
@given(job=jobs, load=loads, promised=commitments, more=st.integers(0, 100))
def test_more_promises_are_not_cheaper(what: str, job: Job, load: Load, promised: Commitments, more: int) -> None:
    committed = structs.replace(promised, **{what: getattr(promised, what) + more})
    check_not_lower(price(job, load, promised), price(job, load, committed))


@given(jobs, loads, commitments, st.floats(0.02, 50.0), st.floats(0, 1e3), st.floats(0, 1e3))
def test_more_faults_and_quiet_hours_are_not_cheaper(
    job: Job, load: Load, promised: Commitments, speed: float, faults: float, more: float
) -> None:
    before = price(job, load, promised, Standing(speed, faults))
    check_not_lower(before, price(job, load, promised, Standing(speed, faults + more)))
    check_not_lower(before, price(job, load, promised, Standing(speed, faults, quiet=True)))


@given(jobs, loads, commitments, st.floats(0.02, 50.0), st.floats(1.0, 10.0))
def test_a_faster_host_is_not_dearer(job: Job, load: Load, promised: Commitments, speed: float, factor: float) -> None:
    slow, fast = (price(job, load, promised, Standing(pace)) for pace in (speed, speed * factor))
    check_not_lower(fast, slow)


@pytest.mark.parametrize("slots", [4, 64, 512])
def test_a_bid_takes_less_than_a_millisecond(slots: int) -> None:
    """By the median, on a machine that has other work."""
    promised = Commitments(slots, slots, slots, 8, tuple(float(index) for index in range(slots)))
    taken = []
    for _ in range(51):
        began = time.thread_time()
        price(promised=promised)
        taken.append(time.thread_time() - began)
    assert statistics.median(taken) < 1e-3
