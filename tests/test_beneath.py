"""Files beneath a directory: no link leads out, with openat2 and without."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rakefarm import beneath
from rakefarm.beneath import open_beneath


@pytest.fixture(params=[False, True], ids=["openat2", "walked"])
def top(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(beneath, "_lacking", request.param)
    (tmp_path / "top" / "a" / "b").mkdir(parents=True)
    (tmp_path / "top" / "a" / "b" / "file").write_text("good")
    (tmp_path / "secret").write_text("bad")
    descriptor = os.open(tmp_path / "top", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def read(top: int, path: bytes) -> bytes:
    with open(open_beneath(top, path, os.O_RDONLY), "rb") as file:
        return file.read()


def test_what_is_there_is_opened(top: int) -> None:
    assert read(top, b"a/b/file") == b"good"


@pytest.mark.parametrize(
    ("link", "to", "path"),
    [
        ("out", "..", b"out/secret"),
        ("out", "../secret", b"out"),
        ("a/out", "../..", b"a/out/secret"),
        ("a/out", "../../secret", b"a/out"),
        ("a/in", "b", b"a/in/file"),
        ("root", "/", b"root/etc/passwd"),
        ("self", "/proc/self/cwd", b"self/x"),
    ],
)
def test_no_link_is_followed(top: int, tmp_path: Path, link: str, to: str, path: bytes) -> None:
    (tmp_path / "top" / link).symlink_to(to)
    with pytest.raises(OSError):
        read(top, path)


def test_nothing_is_left_open(top: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (b"a/b/file", b"a/b/missing", b"missing/x", b"a/b/file/x"):
        try:
            os.close(open_beneath(top, path, os.O_RDONLY))
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before
