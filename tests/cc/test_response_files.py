"""Response files are split as the compilers split them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
@pytest.mark.parametrize("text", [text for text in SPLIT if SPLIT[text] and b"" not in SPLIT[text]])
def test_as_gcc_does(text: bytes, tmp_path: Path) -> None:
    """It names every word that is no file."""
    (tmp_path / "file").write_bytes(text.replace(b"-D", b"D"))
    variables = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    told = subprocess.run(["gcc", "-E", "-x", "c", "@file"], cwd=tmp_path, capture_output=True, env=variables).stderr
    for word in SPLIT[text]:
        assert b"error: " + word.replace(b"-D", b"D") + b": No such file" in told
