"""Whether the server's own files are what a client takes them for."""

import hashlib
import os
from pathlib import Path

import pytest

from rakefarm.digest import no_beat
from rakefarm.server import likeness
from rakefarm.server.likeness import Differs, Likeness
from rakefarm.wire.messages import Execute, Input, Need, Task

SHELL = os.path.realpath("/bin/sh")
DIGEST = hashlib.sha256(Path(SHELL).read_bytes()).hexdigest()


def test_a_file_of_the_system_is_known_by_its_content() -> None:
    mine = Likeness()
    assert mine.has_file(f"{DIGEST}:{SHELL}")
    assert mine.has_file(f"{DIGEST}:{SHELL}")  # from memory
    assert not mine.has_file(f"{DIGEST[::-1]}:{SHELL}")
    assert not mine.has_file(f"{DIGEST}:/usr/no-such-file")


@pytest.mark.parametrize(
    "value",
    ["", ":", DIGEST, f"{DIGEST}:", f"{DIGEST.upper()}:{SHELL}", f"{DIGEST}:usr/x", f"{DIGEST}:/usr\0x", "x:/usr"],
)
def test_rubbish_is_never_met(value: str) -> None:
    assert not Likeness().has_file(value)


def test_files_outside_the_system_are_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    empty = hashlib.sha256(b"").hexdigest()
    assert not Likeness().has_file(f"{empty}:{tmp_path}/x")
    assert not Likeness().has_file(f"{empty}:/usr/..{tmp_path}/x")
    assert Likeness().first_difference([b"- %b/none" % os.fsencode(tmp_path)], no_beat)


def test_devices_and_directories_are_no_files() -> None:
    assert not Likeness().has_file(f"{DIGEST}:/usr")


def test_a_file_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "PLACES", (os.fsencode(tmp_path),))
    path, mine = tmp_path / "x", Likeness()
    for text in (b"one", b"two"):
        path.write_bytes(text)
        os.utime(path, ns=(1, 1))
        assert mine.has_file(f"{hashlib.sha256(text).hexdigest()}:{path}")


def request(value: str, size: int = 0) -> Execute:
    task = Task("compile", (Need("same", value),), 0, 0.0, 0)
    return Execute(0, 0, task, b"", (Input(b"list", b"", 0, 0, size, b""),), 0, (), 0.0, (), "", 0)


def test_lists(tmp_path: Path) -> None:
    box = os.fsencode(tmp_path)
    (tmp_path / "list").write_text(f"{DIGEST} {SHELL}\n- /usr/no-such-file\n")
    Likeness().compare(request("list"), box, no_beat)
    for line in (f"- {SHELL}", f"{DIGEST} /usr/no-such-file", f"{'0' * 64} {SHELL}", "", "x", "- ", "-", f"{DIGEST}"):
        (tmp_path / "list").write_text(f"{DIGEST} {SHELL}\n{line}\n")
        with pytest.raises(Differs):
            Likeness().compare(request("list"), box, no_beat)


def listed(text: str) -> Execute:
    digest = hashlib.sha256(text.encode()).digest()
    task = Task("compile", (Need("same", "list"),), 0, 0.0, 0)
    return Execute(0, 0, task, b"", (Input(b"list", b"", 0, 0, len(text), digest),), 0, (), 0.0, (), "", 0)


def test_a_list_is_read_once_and_the_files_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "PLACES", (f"{tmp_path}/system/".encode(),))
    (tmp_path / "system").mkdir()
    box, mine, text = os.fsencode(tmp_path), Likeness(), f"- {tmp_path}/system/header.h\n"
    (tmp_path / "list").write_text(text)
    mine.compare(listed(text), box, no_beat)
    (tmp_path / "list").unlink()
    mine.compare(listed(text), box, no_beat)
    (tmp_path / "system/header.h").write_text("")
    with pytest.raises(Differs):
        mine.compare(listed(text), box, no_beat)


def test_a_list_that_somebody_has_changed_is_not_remembered(tmp_path: Path) -> None:
    box, mine, text = os.fsencode(tmp_path), Likeness(), f"- {SHELL}\n"
    (tmp_path / "list").write_text("")
    mine.compare(listed(text), box, no_beat)  # it has been emptied
    (tmp_path / "list").write_text(text)
    with pytest.raises(Differs):
        mine.compare(listed(text), box, no_beat)


@pytest.mark.parametrize("value", ["other", "../list", "", "/usr/list", "li\0st"])
def test_a_list_must_be_an_input_of_the_action(value: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("")
    with pytest.raises(Differs):
        Likeness().compare(request(value), os.fsencode(tmp_path), no_beat)


def test_a_list_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(Differs):
        Likeness().compare(request("list", likeness.LIST_BYTES + 1), os.fsencode(tmp_path), no_beat)
