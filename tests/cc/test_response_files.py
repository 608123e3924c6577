"""Response files are split as the compilers split them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.responsefile import expand, split_words

SPLIT = {
    b"": [],
    b" \n\t ": [],
    b"a b\nc": [b"a", b"b", b"c"],
    b"'a b' \"c d\"": [b"a b", b"c d"],
    b"a' 'b": [b"a b"],
    b"\"\" ''": [b"", b""],
    rb"a\ b \" \\": [b"a b", b'"', b"\\"],
    rb'"a\"b"': [b'a"b'],
    b"'a\"b'": [b'a"b'],
    b'-DX="\\"y\\""': [b'-DX="y"'],
}


@pytest.mark.parametrize("text", SPLIT)
def test_words(text: bytes) -> None:
    assert split_words(text) == SPLIT[text]


def test_nested_missing_and_circular_ones(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x @two y")
    (tmp_path / "two").write_bytes(b"'in two'")
    assert expand([b"a", b"@one", b"@none", b"@"], os.fsencode(tmp_path)) == [
        b"a", b"x", b"in two", b"y", b"@none", b"@",
    ]  # fmt: skip
    (tmp_path / "two").write_bytes(b"@one")
    with pytest.raises(Local) as caught:
        expand([b"@one"], os.fsencode(tmp_path))
    assert caught.value.reason is Reason.RESPONSE_FILE


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(alphabet="ab \t'\"\\\n-", min_size=1, max_size=8), min_size=1, max_size=5))
def test_as_gcc_does(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    """`-D` before each word makes gcc show how it took the file: it prints what it would execute."""
    text = " ".join(pieces).encode()
    file = tmp_path_factory.mktemp("response") / "file"
    file.write_bytes(text)
    told = subprocess.run(
        ["gcc", "-E", "-x", "c", "/dev/null", f"@{file}"],
        capture_output=True,
        env={"COLLECT": "", "PATH": os.environ["PATH"], "LC_ALL": "C"},
    )
    for word in split_words(text):
        # Names that can't be files are named in the message; options that gcc doesn't know, too.
        if set(word) & set(b"ab") and not set(word) & set(b"-\n\\\t"):
            assert word in told.stderr
