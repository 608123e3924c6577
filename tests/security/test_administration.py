"""`rakefarm key`, as a user meets it; `ssh` is a program that runs the command here, in another home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rakefarm.security import keys

FAKE_SSH = """\
#!/bin/sh
[ "$1" = -- ] || exit 99
echo "$@" >> "$SEEN"
tr '\\0' ' ' < /proc/$$/environ >> "$SEEN"
case $2 in *unreachable) echo "ssh: no route" >&2; exit 255 ;; esac
XDG_CONFIG_HOME=$HOSTS/$2 HOME=$HOSTS/$2; export XDG_CONFIG_HOME HOME
shift 2
exec sh -c "$*"
"""


class Keeper:
    """A user with a home of its own, and machines that ssh reaches."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "config" / "rakefarm" / "keys"
        (place / "bin").mkdir()
        (place / "bin" / "ssh").write_text(FAKE_SSH)
        (place / "bin" / "ssh").chmod(0o755)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        environment = {
            "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(keys.__file__).parents[2]),
            "XDG_CONFIG_HOME": str(self.place / "config"),
            "HOSTS": str(self.place / "hosts"),
            "SEEN": str(self.place / "seen"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "rakefarm", "key", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    def remote(self, host: str) -> Path:
        return self.place / "hosts" / host / "rakefarm" / "keys"


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path)


def test_a_key_is_made_shown_and_not_told(keeper: Keeper) -> None:
    status, out, _ = keeper.run("new", "zoe")
    key = keys.read_keys(str(keeper.path))["zoe"]
    assert status == 0 and key.fingerprint in out and key.token.hex() not in out
    _, out, _ = keeper.run("show")
    assert out == f"zoe  fingerprint {key.fingerprint}\n"
    _, out, _ = keeper.run("show", "--secret", "zoe")
    assert out == f"zoe {key.token.hex()}\n"
    assert keeper.run("new", "zoe")[0] == 2 and keeper.run("show", "nobody")[0] == 2
    assert keeper.run("new", "a b")[0] == 2


def test_without_a_name_it_is_the_users(keeper: Keeper) -> None:
    assert keeper.run("new")[0] == 0
    (name,) = keys.read_keys(str(keeper.path))
    assert "@" in name
    status, _, err = keeper.run("new")
    assert status == 2 and "already" in err and err.count("\n") == 1


def test_an_unfit_file_is_one_line_and_status_2(keeper: Keeper) -> None:
    keeper.run("new", "zoe")
    keeper.path.chmod(0o644)
    for words in (["show"], ["new", "x"], ["add-host", "lab1"]):
        status, out, err = keeper.run(*words)
        assert (status, out) == (2, "") and "chmod 600" in err and err.count("\n") == 1


def test_a_key_goes_to_other_machines_through_ssh_and_not_as_an_argument(keeper: Keeper) -> None:
    keeper.run("new", "zoe")
    keeper.run("new", "sam")
    status, out, _ = keeper.run("add-host", "lab1", "me@lab2")
    assert status == 0 and out.count("has the key zoe now") == 2
    line = keeper.path.read_text().splitlines()[0]
    token = line.split()[1]
    for host in ("lab1", "me@lab2"):
        assert keeper.remote(host).read_text() == line + "\n"
        assert keeper.remote(host).stat().st_mode & 0o777 == 0o600
    assert token not in (keeper.place / "seen").read_text(), "neither argument nor variable"
    assert "had the key zoe already" in keeper.run("add-host", "lab1")[1]
    assert keeper.run("add-host", "lab1", "--name", "sam")[0] == 0
    assert [*keys.read_keys(str(keeper.remote("lab1")))] == ["zoe", "sam"]
    assert os.listdir(keeper.remote("lab1").parent) == ["keys"], "no temporary file is left"


def test_another_key_of_that_name_there_stays(keeper: Keeper) -> None:
    keeper.run("new", "zoe")
    other = keys.add_key(str(keeper.remote("lab1")), "zoe")
    status, out, _ = keeper.run("add-host", "lab1")
    assert status == 3 and "another key zoe" in out
    assert keys.read_keys(str(keeper.remote("lab1")))["zoe"].token == other.token


def test_hosts_that_fail_are_told_and_the_others_served(keeper: Keeper) -> None:
    keeper.run("new", "zoe")
    keeper.remote("lab2").parent.mkdir(parents=True)
    keeper.remote("lab2").symlink_to("/nowhere")
    status, out, err = keeper.run("add-host", "unreachable", "lab2", "lab3")
    assert status == 3 and "no route" in err and "is a link" in out and "lab3: has the key" in out


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "", "x;y", "$(x)", "a@-b"])
def test_what_is_no_host_never_reaches_ssh(keeper: Keeper, host: str) -> None:
    keeper.run("new", "zoe")
    status, _, err = keeper.run("add-host", "--", host)
    assert status == 2 and err.count("\n") == 1
    assert not (keeper.place / "seen").exists()


def test_the_first_machines_get_a_key_that_is_made_for_them(keeper: Keeper) -> None:
    status, out, _ = keeper.run("add-host", "lab1", "lab2")
    assert status == 0 and f"{keeper.path}: key " in out and "lab2: has the key" in out
    assert keeper.remote("lab1").read_text().split() == keeper.path.read_text().split()
    before = keeper.path.read_bytes()
    assert keeper.run("add-host", "lab1")[0] == 0 and keeper.path.read_bytes() == before
    assert keeper.run("add-host", "--key-file", str(keeper.place / "none"), "--name", "zoe", "lab1")[0] == 2
    assert not (keeper.place / "none").exists(), "a name that is asked for is not made"
