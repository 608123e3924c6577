"""docs/errors.md has a section for each code, with what to do next; and what a person is told carries its code."""

import re
from pathlib import Path

import pytest
from server_vocabulary import ROOT

from rakefarm.cli import main
from rakefarm.codes import Code, coded

DOCUMENT = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SOURCES = [path for path in (ROOT / "rakefarm").rglob("*.py") if path.name != "codes.py"]


def test_every_code_has_its_section_in_order() -> None:
    assert re.findall(r"^## (RF\d{3}): (.*)$", DOCUMENT, re.MULTILINE) == [(code.number, code.title) for code in Code]


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.number)
def test_each_section_says_what_it_is_and_what_is_next(code: Code) -> None:
    text = DOCUMENT.split(f"## {code.number}: ")[1].split("\n## ")[0]
    assert f"\nNext: {code.fix('HOST', 'NAME')}.\n" in text + "\n"
    assert len(text) > 100


def test_numbers_are_different_and_each_code_is_used() -> None:
    assert len({code.number for code in Code}) == len(Code)
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert [code.name for code in Code if f"Code.{code.name}" not in text] == []


RUBY = "require 'rake/clean'\n\ntask :default => [:test]\n\ndesc 'run tests'\ntask :test do\n  sh 'true'\nend\n"


@pytest.mark.parametrize(
    ("words", "content", "code"),
    [
        (["--no-such-option"], "", Code.COMMAND_LINE),
        (["--fallback", "next", "--seed", "x"], "", Code.CONFIGURATION),
        ([], "nonsense\n", Code.RAKEFILE),
        ([], RUBY, Code.OTHER_RAKEFILE),
        (["--progress", "none"], "a:\n\tremote-cat in\n\t\trequires in\n", Code.MISSING_INPUT),
        (["--progress", "none"], "a:\n\texit 3\n", Code.ACTION_FAILED),
    ],
)
def test_what_is_told_carries_its_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    content: str,
    code: Code,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Rakefile").write_text(content)
    assert main(["build", *words]) in (1, 2)
    assert coded("", code) in capfd.readouterr().err


def test_a_required_file_that_was_forgotten_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "include dir").mkdir()
    (tmp_path / "include dir" / "list.h").write_text("")
    (tmp_path / "main.c").write_text('#include "list.h"\n')
    (tmp_path / "Rakefile").write_text("a:\n\tremote-cc -I'include dir' -c main.c\n\t\trequires main.c\n")
    assert main(["build", "--progress", "none"]) == 1
    said = capfd.readouterr().err
    assert "add below it: requires 'include dir/list.h'" in said and "[RF202]" in said
