"""Finding an award policy: by name, or in a file of the user's; what can't be found is one clear error."""

import re
from pathlib import Path

import pytest

from rakefarm.client.policies import find_policy
from rakefarm.config import ConfigError
from rakefarm.market.policies import POLICIES

OWN = "class Own:\n    def __init__(self, view):\n        self.view = view\n    def handle(self, event):\n        return []\n"


ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("place", ["docs/policies.md", "configs/client.toml", "rakefarm/commands/build.py"])
def test_every_name_is_told(place: str) -> None:
    text = (ROOT / place).read_text(encoding="utf-8")
    assert all(re.search(rf"[` \"]{name}[`, ]", text) for name in POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_a_name(name: str) -> None:
    assert find_policy(name) is POLICIES[name]


def test_a_class_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    policy = find_policy(f"{tmp_path}/own.py:Own")(None)  # type: ignore[arg-type]
    assert type(policy).__name__ == "Own"


def test_a_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert callable(find_policy("own.py:Own"))


def test_a_file_with_a_colon_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "a:b.py").write_text(OWN)
    assert callable(find_policy(f"{tmp_path}/a:b.py:Own"))


def test_a_dataclass_in_a_file(tmp_path: Path) -> None:
    """Which looks itself up among the modules."""
    text = "from __future__ import annotations\nfrom dataclasses import dataclass, KW_ONLY\n"
    text += (
        "@dataclass\nclass Own:\n    view: object\n    more: int = 0\n    def handle(self, event):\n        return []\n"
    )
    (tmp_path / "own.py").write_text(text)
    assert callable(find_policy(f"{tmp_path}/own.py:Own"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("raise ValueError('not today')", "ValueError: not today"),
        ("def broken(:", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("", "has no 'Own'"),
        ("Own = 7", "not a class or a function"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_file_that_does_not_do_is_one_clear_error(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "own.py").write_text(content)
    with pytest.raises(ConfigError) as caught:
        find_policy(f"{tmp_path}/own.py:Own")
    text = str(caught.value)
    assert says in text and "own.py" in text and "\n" not in text.strip()


@pytest.mark.parametrize("name", ["cheapest", "", "Plan", "own.txt:Own", ":", "plan:"])
def test_an_unknown_name_is_told_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_policy(name)
    assert all(known in str(caught.value) for known in (*POLICIES, "FILE.py:NAME"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.py:Own", ".py:Own"):
        with pytest.raises(ConfigError, match="no such file"):
            find_policy(f"{tmp_path}/{name}")
    (tmp_path / "directory.py").mkdir()
    with pytest.raises(ConfigError, match="no such file"):
        find_policy(f"{tmp_path}/directory.py:Own")
