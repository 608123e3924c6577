"""The bids that come with rakefarm: what each rests on, and what holds for all of them."""

import math
import statistics
import time

import pytest
from bid_vocabulary import BUSIER, EVERYTHING, check_not_lower, commitments, jobs, loads, standings
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from rakefarm.market.bid import Bid, Coefficients, Commitments, Job, Load, Standing, bid, finish_terms
from rakefarm.market.bids import BIDS, DEFAULT

K = Coefficients()
IDLE = Load(cores=4, busy=0.0, io_wait=0.0, memory_available=1 << 36, memory_total=1 << 36)
FREE = Commitments(slots=4, running=0, waiting=0, leased=0)
COMPILE = Job("compile")
every_bid = pytest.mark.parametrize("name", BIDS)


def price(
    name: str, job: Job = COMPILE, load: Load = IDLE, promised: Commitments = FREE, standing: Standing | None = None
) -> Bid:
    answer = bid(job, load, promised, EVERYTHING, K, standing, BIDS[name])
    assert isinstance(answer, Bid)
    return answer


# --- each of them -----------------------------------------------------------------------------------------


def test_the_default_is_what_a_bid_is_without_a_name() -> None:
    assert BIDS[DEFAULT] is finish_terms
    busy = structs.replace(IDLE, busy=4.0)
    assert price(DEFAULT, load=busy) == bid(COMPILE, busy, FREE, EVERYTHING, K)


def test_flat_asks_for_the_seconds_alone() -> None:
    owned = structs.replace(IDLE, owner_idle_s=0.0, io_wait=1.0)
    full = Commitments(slots=4, running=4, waiting=0, leased=0, ends_in_s=(1.0, 1.0, 1.0, 1.0))
    answer = price("flat", Job("compile", (("license", "acme"),)), owned, full, Standing(faults=9.0, quiet=True))
    assert answer.price == answer.seconds and set(answer.terms) == {"run", "wait"}


def test_load_average_looks_at_the_last_minute_for_each_core() -> None:
    assert price("load-average", load=structs.replace(IDLE, load_average=6.0)).terms == {"work": 0.5, "load": 0.75}
    assert price("load-average", load=structs.replace(IDLE, busy=4.0)).price == 0.5, "and at nothing else"


def test_cpu_looks_at_the_processors() -> None:
    assert price("cpu", load=structs.replace(IDLE, busy_in_all=3.0)).terms == {"work": 0.5, "cpu": 0.375}
    assert price("cpu", load=structs.replace(IDLE, busy_in_all=9.0)).terms == {"work": 0.5, "cpu": 0.5}


@every_bid
def test_only_the_price_is_another(name: str) -> None:
    load = structs.replace(IDLE, busy=3.0, busy_in_all=4.0, load_average=2.0)
    answer, default = price(name, load=load), price(DEFAULT, load=load)
    assert (answer.seconds, answer.curve) == (default.seconds, default.curve)


# --- all of them ------------------------------------------------------------------------------------------


@every_bid
@given(job=jobs, load=loads, promised=commitments, standing=standings)
def test_a_price_is_finite_and_above_zero_and_its_terms_add_up(
    name: str, job: Job, load: Load, promised: Commitments, standing: Standing
) -> None:
    answer = price(name, job, load, promised, standing)
    assert 0 < answer.price < math.inf and 0 < answer.seconds < math.inf
    assert all(0 <= term < math.inf for term in answer.terms.values())
    assert math.isclose(math.fsum(answer.terms.values()), answer.price)


@every_bid
@given(job=jobs, load=loads, promised=commitments, what=st.sampled_from([*BUSIER]), more=st.floats(0, 1000))
def test_a_busier_machine_is_not_cheaper(
    name: str, job: Job, load: Load, promised: Commitments, what: str, more: float
) -> None:
    check_not_lower(price(name, job, load, promised), price(name, job, BUSIER[what](load, more), promised))


@every_bid
@given(
    job=jobs,
    load=loads,
    promised=commitments,
    what=st.sampled_from(["running", "waiting", "leased"]),
    more=st.integers(0, 100),
)
def test_more_promises_are_not_cheaper(
    name: str, job: Job, load: Load, promised: Commitments, what: str, more: int
) -> None:
    committed = structs.replace(promised, **{what: getattr(promised, what) + more})
    check_not_lower(price(name, job, load, promised), price(name, job, load, committed))


@every_bid
def test_a_bid_takes_less_than_a_millisecond(name: str) -> None:
    """By the median, on a machine that has other work."""
    promised = Commitments(512, 512, 512, 8, tuple(float(index) for index in range(512)))
    taken = []
    for _ in range(51):
        began = time.thread_time()
        price(name, promised=promised)
        taken.append(time.thread_time() - began)
    assert statistics.median(taken) < 1e-3
