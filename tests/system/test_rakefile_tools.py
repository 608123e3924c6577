"""init, lint, compdb and config: from the command line, with the compiler of this machine."""

import json
import os
import shutil
from pathlib import Path

import pytest
from server_vocabulary import ROOT

from rakefarm.cli import main

TALLY = ROOT / "examples" / "tally"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and no settings of the user's."""
    for name in [name for name in os.environ if name.startswith("RAKEFARM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    place = tmp_path / "a place, ünïcode"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def small(place: Path) -> None:
    """Two sources, a header of each kind of name, and a header in a directory of its own."""
    (place / "include").mkdir()
    (place / "include" / "deep.h").write_text("#define DEEP 1\n")
    (place / "include" / "list.h").write_text('#include "deep.h"\nint length(void);\n')
    (place / "a list.c").write_text(
        '#include "list.h"\n#include <math.h>\nint length(void) { return (int)sqrt(DEEP); }\n'
    )
    (place / "main.c").write_text('#include "list.h"\n/* int other(void) */ int main(void) { return length() - 1; }\n')


def test_init_writes_a_rakefile_that_builds_and_has_nothing_to_complain_of(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(here)
    assert main(["init", "--name", "program"]) == 0
    text = (here / "Rakefile").read_text()
    assert "remote-cc -O2 -Iinclude -c main.c -o main.o\n\t\trequires main.c include/list.h include/deep.h" in text
    assert "requires 'a list.c' include/list.h include/deep.h\n\t\tproduces 'a list.o'" in text
    assert "remote-cc -o program main.o 'a list.o' -lm" in text
    assert main(["lint"]) == 0
    assert main(["build", "--progress", "none"]) == 0, capsys.readouterr().err
    assert (here / "program").exists()


def test_init_never_overwrites(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(here)
    (here / "Rakefile").write_text("mine")
    assert main(["init"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (here / "Rakefile").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("x.c", '#include "gone.h"\n', "gone.h"), ("x#.c", "", "can't name"), ("x.txt", "", "no C or C++ file")],
)
def test_init_says_what_it_can_not_do(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, said: str
) -> None:
    (here / name).write_text(content)
    assert main(["init"]) == 2
    assert said in capsys.readouterr().err
    assert os.listdir(here) == [name]


def test_lint_names_what_is_missing_and_what_is_unused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(TALLY, here, dirs_exist_ok=True)
    assert main(["lint"]) == 0, capsys.readouterr().out
    lines = (here / "Rakefile").read_text().split("\n")
    number = next(number for number, line in enumerate(lines) if "requires src/buffer.c" in line)
    lines[number] = "\t\trequires src/buffer.c include/buffer.h include/json.h"
    (here / "Rakefile").write_text("\n".join(lines))
    capsys.readouterr()
    assert main(["lint"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"Rakefile:{number}: missing: add: requires include/alloc.h",
        f"Rakefile:{number}: unused: not included: include/json.h",
    ]


def test_lint_of_links_and_of_what_it_can_not_judge(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "Rakefile").write_text(
        "one:\n\tremote-cc -c a.c\n\t\trequires a.c\n\tremote-cc -c *.c\n\t\trequires a.c\n"
        "two:\n\tremote-cc -o p a.o -L. -lx\n\t\trequires libx.a b.o\n"
    )
    for name in ("a.c", "libx.a", "b.o"):
        (here / name).write_bytes(b"")
    assert main(["lint", "--json"]) == 1
    found = [(each["line"], each["kind"], each["files"]) for each in json.loads(capsys.readouterr().out)]
    assert found == [(4, "unchecked", []), (7, "missing", ["a.o"]), (7, "unused", ["b.o"])]


def test_a_compilation_database(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "src").mkdir()
    (here / "src" / "a.c").write_text("")
    (here / "Rakefile").write_text("s:\n\tremote-cc -c a.c -o 'a b.o'\n\t\trequires src/a.c\n\techo a.c\n")
    assert main(["compdb"]) == 0
    assert json.loads((here / "compile_commands.json").read_text()) == [
        {
            "directory": str(here),
            "arguments": ["cc", "-c", "src/a.c", "-o", "a b.o"],
            "file": "src/a.c",
            "output": "a b.o",
        }
    ]
    assert main(["compdb", "-o", str(here / "no" / "where")]) != 0
    assert "where" in capsys.readouterr().err


def test_config_says_where_each_value_comes_from(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config" / "rakefarm" / "client.toml"
    file.parent.mkdir(parents=True)
    file.write_text('attempts = 7\nhosts = ["lab9"]\n')
    (here / "Rakefile").write_text("HOSTS = lab1 lab2:7\n")
    monkeypatch.setenv("RAKEFARM_JOBS", "3")
    assert main(["config", "--json"]) == 0
    told = {each["setting"]: (each["value"], each["origin"]) for each in json.loads(capsys.readouterr().out)}
    assert told["attempts"] == (7, str(file)) and told["jobs"] == (3, "RAKEFARM_JOBS")
    assert told["hosts"] == (["lab1:6238", "lab2:7"], "Rakefile") and told["connect_s"] == (3.0, "default")
    monkeypatch.setenv("RAKEFARM_HOSTS", "lab3")
    assert main(["config", "--show-origin"]) == 0
    assert 'hosts = ["lab3:6238"]' in (said := capsys.readouterr().out) and "# RAKEFARM_HOSTS" in said
    (tmp_path / "server.toml").write_text("[price]\nowner_weight = 2\n")
    assert main(["config", "--server", "--json", "--config", str(tmp_path / "server.toml")]) == 0
    told = {each["setting"]: (each["value"], each["origin"]) for each in json.loads(capsys.readouterr().out)}
    assert told["price.owner_weight"] == (2.0, str(tmp_path / "server.toml")) and told["slots"][1] == "this machine"
