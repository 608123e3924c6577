"""Dependency files of a compile elsewhere become those of one here, down to where the lines break."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rakefarm.cc.depfile import names, without


def test_without_the_directory_nothing_changes() -> None:
    text = b"a.o: a.c \\\n  b.h   c.h\n"
    assert without(text, b"/box", "gcc") == text


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_lines_break_as_the_compiler_breaks_them(compiler: str, tmp_path: Path) -> None:
    """The same project below two directories, one with a long name: the one's file becomes the other's."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    box = tmp_path / "a-rather-long-name-for-a-directory" / "and-another-one" / "box"
    here = Path("/tmp") / f"rakefarm-dep-{os.getpid()}"
    there = Path(f"{box}{here}")
    try:
        for place in (here, there):
            place.mkdir(parents=True)
            headers = [f"{'h' * number}.h" for number in range(1, 60)] + ["with blank.h", "dollar$.h", "hash#.h"]
            for header in headers:
                (place / header).write_text("")
            (place / "a.c").write_text("".join(f'#include "{header}"\n' for header in headers))
            line = [compiler, f"-I{place}", "-MD", "-MP", "-MF", str(place / "a.d"), "-c", str(place / "a.c")]
            subprocess.run([*line, "-o", str(place / "a.o")], check=True)
        text = (there / "a.d").read_bytes()
        assert os.fsencode(box) in text
        assert without(text, os.fsencode(box), compiler) == (here / "a.d").read_bytes()
        assert os.fsencode(here / "with blank.h") in names((here / "a.d").read_bytes())
        assert os.fsencode(here / "dollar$.h") in names((here / "a.d").read_bytes())
    finally:
        shutil.rmtree(here, ignore_errors=True)


def test_several_targets_and_colons_in_names() -> None:
    text = b"x.o y.o: /box/a.c /box/c:d.h\n\n/box/c:d.h:\n"
    assert without(text, b"/box", "gcc") == b"x.o y.o: /a.c /c:d.h\n\n/c:d.h:\n"
