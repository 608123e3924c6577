"""What counts as this machine alone."""

import pytest

from rakefarm.security.network import group_of, is_loopback


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    ["", "0.0.0.0", "::", "::ffff:127.0.0.1", "192.0.2.1", "10.0.0.1", "fe80::1%eth0", "localhost", "x", "128.0.0.1"],
)
def test_whatever_else_is_the_network(address: str) -> None:
    assert not is_loopback(address)


def test_who_counts_as_one_party() -> None:
    assert group_of("192.0.2.1") == group_of("::ffff:192.0.2.1") == "192.0.2.1" != group_of("192.0.2.2")
    assert group_of("2001:db8::1") == group_of("2001:db8::ffff:1%eth0") != group_of("2001:db8:0:1::1")
