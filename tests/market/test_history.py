"""What commands took before: which commands count as the same."""

import time

import pytest

from rakefarm.market.history import signature_of


@pytest.mark.parametrize(
    ("command", "signature"),
    [
        ("cc -Iinclude -c src/a.c", "cc -Iinclude -c a.c"),
        ("cc -I/x/include -c a.c", "cc include -c a.c"),
        ("/usr/bin/cc  --sysroot=/a/b/root -c 'x/y/a b.c'", "cc --sysroot=root -c 'a b.c'"),
        ("a//b/ c", "c"),
    ],
)
def test_a_signature_is_the_command_without_directories(command: str, signature: str) -> None:
    assert signature_of(command) == signature


def test_a_long_word_takes_no_time() -> None:
    started = time.process_time()
    assert signature_of("x" * 1_000_000) == "x" * 1_000_000
    assert time.process_time() - started < 1.0
