"""The names of a `produces` line as paths on the wire."""

import pytest

from rakefarm.client.inputs import InputError, declared_paths


def test_names_become_paths_each_once() -> None:
    assert declared_paths(["./out.o", "out.o", "sub/./a"]) == (b"out.o", b"sub/a")


@pytest.mark.parametrize("name", ["../out", "/tmp/out", ".", "a/../b", "a//b", "a\nb"])
def test_a_name_that_cannot_come_back_is_told(name: str) -> None:
    with pytest.raises(InputError, match="a declared output can't come back"):
        declared_paths([name])
