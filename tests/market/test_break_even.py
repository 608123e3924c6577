"""The model of when a farm pays: its pieces, and that it never says what can't be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rakefarm.market.break_even import Build, Client, Costs, Hosts, least_work_s, local_s, remote_s, saved_s

COSTS = Costs(0.1, 0.001, 1e-8, 0.002, 5.0, 1.0)
FREE = Costs(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_without_costs_a_farm_is_as_much_faster_as_it_has_slots_and_speed() -> None:
    build = Build(actions=24, work_s=2.0)
    assert local_s(build, Client(cores=2)) == 24.0
    assert remote_s(build, Client(2), Hosts(slots=8, speed=2.0), FREE) == 3.0


def test_a_client_with_a_quarter_of_its_processor_takes_four_times_as_long() -> None:
    assert local_s(Build(3, 1.0), Client(1, share=0.25)) == 12.0


@pytest.mark.parametrize(
    ("hosts", "build", "seconds"),
    [
        pytest.param(Hosts(100, 1.0, 0.0, 8e6), Build(10, 0.0, 1e6), 10.0, id="cable"),
        pytest.param(Hosts(100, 1.0, 0.5, 1e12), Build(10, 0.0), 0.5, id="round trip"),
        pytest.param(Hosts(1, 1.0, 0.0, 1e12), Build(10, 0.3), 3.0, id="hosts"),
    ],
)
def test_the_bottleneck_decides(hosts: Hosts, build: Build, seconds: float) -> None:
    costs = Costs(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    assert remote_s(build, Client(), hosts, costs) == pytest.approx(seconds)


def test_a_weak_client_is_its_own_bottleneck() -> None:
    costs = Costs(0.0, 0.01, 0.0, 0.0, 0.0, 0.0)
    assert remote_s(Build(100, 0.1), Client(1, 0.5), Hosts(100), costs) == pytest.approx(2.0)


def test_a_farm_no_larger_than_the_machine_never_pays() -> None:
    assert least_work_s(Build(200, 0.0), Client(4), Hosts(slots=4), COSTS) == math.inf


amounts = some.floats(0.0, 1e8)


@given(
    actions=some.integers(1, 500),
    size=amounts,
    cores=some.integers(1, 16),
    share=some.floats(0.05, 1.0),
    slots=some.integers(1, 128),
    speed=some.floats(0.2, 4.0),
    round_trip_s=some.floats(0.0, 0.1),
    rate_bps=some.floats(1e6, 1e10),
)
def test_at_the_break_even_both_take_as_long(
    actions: int,
    size: float,
    cores: int,
    share: float,
    slots: int,
    speed: float,
    round_trip_s: float,
    rate_bps: float,
) -> None:
    client, hosts = Client(cores, share), Hosts(slots, speed, round_trip_s, rate_bps)
    least = least_work_s(Build(actions, 0.0, size), client, hosts, COSTS)
    if least == math.inf:
        return
    above, below = Build(actions, least * 1.001, size), Build(actions, least * 0.99, size)
    assert saved_s(above, client, hosts, COSTS) >= -1e-6
    if least > 1e-5:
        assert saved_s(below, client, hosts, COSTS) < 1e-6


@given(work_s=some.floats(0.0, 100.0), more=some.floats(0.0, 100.0), size=amounts, slots=some.integers(1, 64))
def test_more_work_or_more_bytes_never_take_less(work_s: float, more: float, size: float, slots: int) -> None:
    hosts, client = Hosts(slots, 1.0, 0.001, 1e9), Client()
    base = remote_s(Build(10, work_s, size), client, hosts, COSTS)
    assert remote_s(Build(10, work_s + more, size), client, hosts, COSTS) >= base
    assert remote_s(Build(10, work_s, size + more * 1e5), client, hosts, COSTS) >= base
