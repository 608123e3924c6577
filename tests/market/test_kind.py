"""What kind of work a command is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.market.kind import COMPILE, LINK, OTHER, kind_of


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("cc -c hello.c", COMPILE),
        ("gcc -O2 -c -o a.o a.c", COMPILE),
        ("g++ -std=c++20 -c a.cc", COMPILE),
        ("clang-17 -S a.c", COMPILE),
        ("/usr/bin/x86_64-linux-gnu-gcc-13 -E a.c", COMPILE),
        ("arm-none-eabi-g++ -fsyntax-only a.cc", COMPILE),
        ("ccache gcc -c a.c", COMPILE),
        ("CCACHE_DIR=/x nice ccache cc -c a.c", COMPILE),
        ("cc -o hello hello.o", LINK),
        ("c++ a.o b.o", LINK),
        ("ld -r -o all.o a.o", LINK),
        ("ld.gold a.o", LINK),
        ("ar rcs liba.a a.o", LINK),
        ("/usr/bin/ranlib liba.a", LINK),
        ("arm-none-eabi-ar rcs liba.a a.o", LINK),
        ("./hello --test", OTHER),
        ("python3 make.py -c", OTHER),
        ("tar cf x.tar gcc -c", OTHER),
        ("gccx -c a.c", OTHER),
        ("", OTHER),
        ("   ", OTHER),
        ("A=1", OTHER),
        ("env", OTHER),
    ],
)
def test_kinds(command: str, kind: str) -> None:
    assert kind_of(command) == kind


@given(st.text())
def test_any_text_has_a_kind(command: str) -> None:
    assert kind_of(command) in (COMPILE, LINK, OTHER)


@pytest.mark.parametrize("word", ["a-" * 50_000, "a." * 50_000, "/" * 100_000, "a" * 100_000 + "!"])
def test_a_long_word_takes_no_time_to_speak_of(word: str) -> None:
    """Under the runner's time limit, that is: a pattern that backtracks would take hours."""
    assert kind_of(word) == OTHER
