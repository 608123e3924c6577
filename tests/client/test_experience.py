"""What builds have taught is kept from one to the next; a file that can't be read or written costs no build."""

import os
import stat
from pathlib import Path

import pytest

from rakefarm.client.experience import Experiences, state_directory
from rakefarm.market.history import Experience


def taught(environ: dict[str, str]) -> Experiences:
    experiences = Experiences(environ)
    experiences.history.learn("cc -c a.c", "compile", 1000, 2.0, 50 << 20)
    return experiences


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


def test_what_was_learned_is_known_in_the_next_build(environ: dict[str, str], tmp_path: Path) -> None:
    assert list(Experiences(environ).history.items()) == []
    taught(environ).save()
    later = Experiences(environ)
    assert list(later.history.items()) == [("cc -c a.c", Experience(2.0, 1000, 50 << 20, 1))]
    later.history.learn("cc -c b.c", "compile", 1000, 4.0, 0)
    later.save()
    assert [name for name, _ in Experiences(environ).history.items()] == ["cc -c a.c", "cc -c b.c"]
    assert os.listdir(tmp_path / "state" / "rakefarm") == ["history"], "nothing beside it"


def test_nobody_else_may_look(environ: dict[str, str], tmp_path: Path) -> None:
    taught(environ).save()
    assert stat.S_IMODE((tmp_path / "state" / "rakefarm").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\xc1" * 100,
        b"\x93\x01\x02\x03",
        b"\x91\x92\xa1a\x94\xa1b\x01\x02\x03",
        b"\x91\x92\xa2\xff\xff\x94\x01\x02\x03\x04",
        os.urandom(5000),
        b"\x91" * 100_000,
    ],
)
def test_a_damaged_file_is_as_good_as_none_and_is_replaced(
    environ: dict[str, str], tmp_path: Path, content: bytes
) -> None:
    place = tmp_path / "state" / "rakefarm"
    place.mkdir(parents=True)
    (place / "history").write_bytes(content)
    experiences = Experiences(environ)
    assert list(experiences.history.items()) == []
    experiences.history.learn("x", "other", 1, 1.0, 0)
    experiences.save()
    assert len(list(Experiences(environ).history.items())) == 1


def test_a_cut_file_is_as_good_as_none(environ: dict[str, str], tmp_path: Path) -> None:
    taught(environ).save()
    path = tmp_path / "state" / "rakefarm" / "history"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert list(Experiences(environ).history.items()) == []


@pytest.mark.parametrize("obstacle", ["file", "directory", "dangling"])
def test_where_nothing_can_be_written_nothing_is_kept(environ: dict[str, str], tmp_path: Path, obstacle: str) -> None:
    """Permission bits don't hold for root; what stands in the way holds for all."""
    state = tmp_path / "state"
    if obstacle == "file":
        state.write_text("in the way")
    elif obstacle == "directory":
        (state / "rakefarm" / "history").mkdir(parents=True)
    else:
        state.symlink_to(tmp_path / "nowhere" / "deep")
        (tmp_path / "nowhere").write_text("in the way")
    taught(environ).save()
    assert list(Experiences(environ).history.items()) == []
    if obstacle == "directory":
        assert os.listdir(state / "rakefarm") == ["history"], "and nothing is left lying about"


@pytest.mark.skipif(not os.geteuid(), reason="root may write anywhere")
def test_a_directory_that_is_read_only(environ: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "state" / "rakefarm"
    place.mkdir(parents=True)
    place.chmod(0o500)
    taught(environ).save()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/rakefarm"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/rakefarm"),
        ({"HOME": "/h"}, "/h/.local/state/rakefarm"),
    ],
)
def test_where_it_is_kept(environ: dict[str, str], expected: str) -> None:
    assert state_directory(environ) == expected
