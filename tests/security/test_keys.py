"""The file of keys: who may read it, what may stand in it, and that no token shows where it should not."""

import os
import threading
import traceback
from pathlib import Path

import pytest

from rakefarm.config import ConfigError
from rakefarm.security import keys


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the file is to be; its directory is not there."""
    return str(tmp_path / "config" / "rakefarm" / "keys")


def test_a_new_key_is_32_random_bytes_in_a_file_of_our_own(path: str) -> None:
    made = keys.add_key(path, "zoe@lab4")
    assert len(made.token) == 32
    assert os.stat(path).st_mode & 0o7777 == 0o600 and os.stat(os.path.dirname(path)).st_mode & 0o7777 == 0o700
    assert keys.read_keys(path)["zoe@lab4"].token == made.token
    assert os.listdir(os.path.dirname(path)) == ["keys"], "nothing else is left"


def test_keys_are_added_and_never_replaced(path: str) -> None:
    first, second = keys.add_key(path, "a"), keys.add_key(path, "b")
    with pytest.raises(ConfigError, match="there is a key 'a' already"):
        keys.add_key(path, "a")
    ring = keys.read_keys(path)
    assert [*ring] == ["a", "b"] and first.token != second.token
    assert keys.choose(ring, "", path).name == "a" and keys.choose(ring, "b", path).token == second.token


def test_ten_at_once_lose_none(path: str) -> None:
    threads = [threading.Thread(target=keys.add_key, args=(path, f"k{number}")) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys.read_keys(path)) == 10


def test_comments_blank_lines_and_a_missing_last_newline(path: str) -> None:
    keys.add_key(path, "a")
    text = Path(path).read_text()
    Path(path).write_text(f"# mine\n\n{text.rstrip()} # since May")
    keys.add_key(path, "b")
    assert [*keys.read_keys(path)] == ["a", "b"]


@pytest.mark.parametrize("name", ["", "a b", "zoë", "-x", ".x", "a/b", "a\n", "a#", "x" * 65, "a\0"])
def test_names_that_no_key_can_have(path: str, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a key"):
        keys.add_key(path, name)
    assert not os.path.exists(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601, 0o777])
def test_a_file_that_others_can_use_is_refused_with_what_to_do(path: str, mode: int) -> None:
    keys.add_key(path, "a")
    os.chmod(path, mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        keys.read_keys(path)


def test_links_are_refused(path: str, tmp_path: Path) -> None:
    keys.add_key(path, "a")
    soft, hard = tmp_path / "soft", tmp_path / "hard"
    soft.symlink_to(path)
    with pytest.raises(ConfigError, match="must not be a link"):
        keys.read_keys(str(soft))
    os.link(path, hard)
    with pytest.raises(ConfigError, match="one name, this one has 2"):
        keys.read_keys(path)


def test_what_is_no_file_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for what in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(ConfigError, match="regular file"):
            keys.read_keys(str(what))
    with pytest.raises(ConfigError, match="rakefarm key new"):
        keys.read_keys(str(tmp_path / "missing"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_strangers_file_is_refused(path: str) -> None:
    keys.add_key(path, "a")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        keys.read_keys(path)


@pytest.mark.parametrize(
    "line", ["zoe", "zoe " + "a" * 63, "zoe " + "A" * 64, "zoe " + "g" * 64, "zoe x y", "é " + "a" * 64]
)
def test_what_is_no_key_is_named_by_its_line_and_not_repeated(path: str, line: str) -> None:
    keys.add_key(path, "a")
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError) as caught:
        keys.read_keys(path)
    assert line not in str(caught.value) and "\n" not in str(caught.value)


def test_the_same_name_twice_is_refused(path: str) -> None:
    keys.add_key(path, "a")
    Path(path).write_text(Path(path).read_text() * 2)
    with pytest.raises(ConfigError, match="a second key 'a'"):
        keys.read_keys(path)


def test_no_token_shows(path: str) -> None:
    key = keys.add_key(path, "a")
    shown = [repr(key), str(key), f"{keys.read_keys(path)}", key.fingerprint]
    try:
        raise ValueError(key)
    except ValueError:
        shown.append(traceback.format_exc())
    for text in shown:
        assert key.token.hex() not in text and repr(key.token) not in text and key.token.hex()[:16] not in text


def test_where_the_file_is(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert keys.find_path("", home) == "", "there is none"
    usual = keys.default_path(home)
    keys.add_key(usual, "a")
    assert keys.find_path("", home) == usual == str(tmp_path / ".config/rakefarm/keys")
    assert keys.find_path("none", home) == "" and keys.find_path("/x", home) == "/x"
    os.unlink(usual)
    os.symlink("/nowhere", usual)
    assert keys.find_path("", home) == usual, "a link is there, and will be refused: it is not as if there were no key"
