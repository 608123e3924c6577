"""Commands that need no shell: what is told of them is what a shell would do."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rakefarm.words import Placed, split_placed

SAY = b'#!/bin/sh\nprintf \'%s\\0\' "$@" "$PWD" "$OLDPWD"\n'


def placed(directory: bytes, program: bytes, words: bytes) -> bytes:
    return b"B=$PWD;echo \"$B\";cd '.%b'&&exec '%b' %b" % (directory, program, words)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("box")
    (made / "a b" / "c").mkdir(parents=True)
    (made / "say").write_bytes(SAY)
    (made / "say").chmod(0o755)
    return made


def by_shell(box: Path, command: bytes) -> bytes:
    """What it prints."""
    environ = {"PWD": str(box), "PATH": os.environ["PATH"]}
    return subprocess.run(["/bin/sh", "-c", command], cwd=box, env=environ, stdout=-1, stderr=-2).stdout


def by_us(found: Placed) -> bytes:
    ended = subprocess.run(found.words, cwd=found.directory, env=found.variables, stdout=-1, stderr=-2)
    return found.said + ended.stdout


def quoted(word: bytes) -> bytes:
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


PIECES = st.one_of(
    st.binary(max_size=8).filter(lambda text: b"\0" not in text).map(quoted),
    st.sampled_from([b'"$B"', b'"-fmap=$B="', b'"$B/x $B"', b'""', b"-I", b"plain:word", b"\\'"]),
)
WORDS = st.lists(st.lists(PIECES, min_size=1, max_size=4).map(b"".join), max_size=6).map(b" ".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=WORDS)
def test_what_is_understood_is_what_a_shell_does(box: Path, words: bytes) -> None:
    command = placed(b"/a b/c", os.fsencode(box / "say"), words)
    found = split_placed(command, os.fsencode(box))
    assert found is not None
    assert by_us(found) == by_shell(box, command)


@pytest.mark.parametrize(
    "command",
    [
        b"gcc -c a.c",
        b"B=$PWD;echo \"$B\";cd './a'&&exec gcc",
        b"B=$PWD;echo \"$B\";cd './a'&&exec './say'",
        b"B=$PWD;echo \"$B\";cd './a/../b'&&exec '/bin/x'",
        b"B=$PWD;echo \"$B\";cd './a/'&&exec '/bin/x'",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' $B",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' \"$BOX\"",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' \"`id`\"",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' \"\\$B\"",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' a;id",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' *",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' >x",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' 'a",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' ~",
        b"B=$PWD;echo \"$B\";cd './a'&&exec '/bin/x' \n id",
        b"B=$PWD;echo \"$B\";cd './a'&&exec ",
    ],
)
def test_anything_else_is_for_the_shell(command: bytes) -> None:
    assert split_placed(command, b"/box") is None


def test_a_directory_that_echo_would_print_otherwise_is_for_the_shell() -> None:
    assert split_placed(placed(b"/a", b"/bin/x", b"b"), b"/b\\nx") is None
    assert split_placed(placed(b"/a", b"/bin/x", b"b"), b"/box") is not None
