"""How many jobs a build is started with."""

import pytest

from rakefarm.cc.masquerade import with_jobs

CHANGED = {
    "make -j": "make -j7",
    "make -j all": "make -j7 all",
    "make -j 3 all": "make -j 3 all",
    "make -j3": "make -j3",
    "make": "make",
    "gmake --jobs": "gmake -j7",
    "ninja": "ninja -j7",
    "ninja -C build": "ninja -j7 -C build",
    "ninja -j2": "ninja -j2",
    "/usr/bin/ninja -k 0": "/usr/bin/ninja -j7 -k 0",
    "cmake --build . -j": "cmake --build . -j7",
    "cmake --build . --parallel": "cmake --build . -j7",
    "grep -j": "grep -j",
}


@pytest.mark.parametrize("line", CHANGED)
def test_a_bare_j_gets_a_number(line: str) -> None:
    assert with_jobs(line.split(), lambda: 7) == CHANGED[line].split()
