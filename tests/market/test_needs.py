"""What an action needs of a host: what is there is priced, what is not is refused with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.market.bid import GIB, Bid, Coefficients, Commitments, Job, Load, bid
from rakefarm.market.needs import Facilities, Refusal, cores_wanted, parse_cores, parse_size, refuse_need

K = Coefficients()
IDLE = Load(cores=4, busy=0.0, io_wait=0.0, memory_available=60 * GIB, memory_total=64 * GIB)
FREE = Commitments(slots=4, running=0, waiting=0, leased=0)
THERE: dict[str, object] = {"cores": 4, "memory_available": 60 * GIB, "architecture": "riscv64"}


def answer_to(needs: dict[str, str], facilities: dict[str, object]) -> Bid | Refusal:
    there = Facilities(**{**THERE, **facilities})  # type: ignore[arg-type]
    return bid(Job("compile", tuple(needs.items()), 1000), IDLE, FREE, there, K)


@pytest.mark.parametrize(
    ("needs", "facilities", "reason"),
    [
        ({}, {"draining": True}, "draining"),
        ({}, {"disk_free": K.disk_floor + 999}, "disk"),
        ({"mem": "61G"}, {}, "memory"),
        ({"mem": "59.5G"}, {}, "memory"),
        ({"mem": ""}, {}, "memory"),
        ({"mem": "-1"}, {}, "memory"),
        ({"mem": "9" * 5000}, {}, "memory"),
        ({"mem": "60G"}, {}, "memory"),
        ({"cpu": "5"}, {}, "cpu"),
        ({"cpu": ""}, {}, "cpu"),
        ({"cpu": "two"}, {}, "cpu"),
        ({"cpu": "-1"}, {}, "cpu"),
        ({"cpu": "²"}, {}, "cpu"),
        ({"cpu": "0" * 9 + "9" * 400}, {}, "cpu"),
        ({"cpu": "9" * 5000}, {}, "cpu"),
        ({"tool": "gcc"}, {"tools": frozenset({"cc"})}, "tool"),
        ({"tool": ""}, {"tools": frozenset({"cc"})}, "tool"),
        ({"license": "acme"}, {"licenses": frozenset({"other"})}, "license"),
        ({"license": ""}, {"licenses": frozenset({"acme"})}, "license"),
        ({"arch": "x86_64"}, {}, "arch"),
        ({"arch": ""}, {}, "arch"),
        ({"arch": "RISCV64"}, {}, "arch"),
        ({"gpu": ""}, {}, "resource"),
        ({"": ""}, {}, "resource"),
        ({"cpu": "1", "gpu": "1"}, {}, "resource"),
    ],
)
def test_what_is_not_there_is_refused(needs: dict[str, str], facilities: dict[str, object], reason: str) -> None:
    answer = answer_to(needs, facilities)
    assert isinstance(answer, Refusal), answer
    assert answer.reason == reason
    assert answer.text and "\n" not in answer.text


@pytest.mark.parametrize(
    ("needs", "facilities"),
    [
        ({}, {}),
        ({"mem": "59G"}, {}),
        ({"mem": "1024"}, {}),
        ({"cpu": "4"}, {}),
        ({"cpu": "0" * 5000 + "4"}, {}),
        ({"tool": "gcc"}, {"tools": frozenset({"gcc"})}),
        ({"license": "acme"}, {"licenses": frozenset({"acme"})}),
        ({"arch": "riscv64"}, {}),
        ({"arch": "riscv64", "cpu": "2", "mem": "1G"}, {}),
        ({}, {"disk_free": K.disk_floor + 1000}),
    ],
)
def test_what_is_there_is_priced(needs: dict[str, str], facilities: dict[str, object]) -> None:
    assert isinstance(answer_to(needs, facilities), Bid)


@given(st.text(), st.text())
def test_any_need_is_met_or_refused_with_one_line(key: str, value: str) -> None:
    answer = refuse_need(key, value, Facilities(), K.memory_floor)
    assert answer is None or answer.reason


@pytest.mark.parametrize(
    ("needs", "cores"),
    [
        ((), 1),
        ((("cpu", "3"),), 3),
        ((("cpu", "0"),), 1),
        ((("cpu", "many"),), 1),
        ((("mem", "8"), ("cpu", "2"), ("cpu", "4")), 4),
    ],
)
def test_cores_that_an_action_keeps_busy(needs: tuple[tuple[str, str], ...], cores: int) -> None:
    assert cores_wanted(needs) == cores


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


@given(st.text())
def test_any_text_is_a_number_of_cores_or_not(text: str) -> None:
    cores = parse_cores(text)
    assert cores is None or 0 <= cores < 1_000_000_000
