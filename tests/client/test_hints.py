"""A hint is given when it is right, and else nothing is said."""

import pytest

from rakefarm.client.hints import absent_directory


@pytest.mark.parametrize(
    ("command", "directory"),
    [
        ("cc -c -o out/a.o src/a.c", "out"),
        ("cc -c -oout/a.o src/a.c", "out"),
        ("cc -c src/a.c -o ./deep/out/a.o", "deep/out"),
        ("ld --output=bin/x a.o", "bin"),
        ("sort in > done/out", "done"),
        ("sort in >>done/out", "done"),
    ],
)
def test_a_directory_that_is_not_there_is_named(command: str, directory: str) -> None:
    hint = absent_directory(command, [b"src/a.c", b"a.c"], None)
    assert f"no directory {directory} " in hint and "produces" in hint


@pytest.mark.parametrize(
    "command",
    [
        "cc -c -o a.o src/a.c",
        "cc -c -o ./a.o src/a.c",
        "cc -c -o src/a.o src/a.c",
        "cc -c -o deep/er/a.o src/a.c",
        "cc -c -o /tmp/x/a.o src/a.c",
        "cc -c -o ../x/a.o src/a.c",
        "mkdir -p out && cc -c -o out/a.o src/a.c",
        "cc -c -o $OUT/a.o src/a.c",
        "cc -c src/a.c 2>&1",
        "grep -only x/y in",
        "",
        "-o",
        ">",
    ],
)
def test_nothing_is_said_where_there_is_nothing_to_say(command: str) -> None:
    assert absent_directory(command, [b"src/a.c", b"deep/er/in"], None) == ""
    assert absent_directory("cc -o out/a.o a.c", [], [b"out/b.o"]) == ""
