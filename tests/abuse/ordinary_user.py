"""The attacks once more, made by an ordinary user, when root runs the tests."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import psutil

import rakefarm
from rakefarm.server.selftest import LevelReport

NOBODY = 65534
CODE = """
import sys, msgspec
from rakefarm.levels import LEVELS
from rakefarm.server.selftest import attack_levels
sys.stdout.buffer.write(msgspec.json.encode(attack_levels(sys.argv[1:] or tuple(LEVELS))))
"""


class NoOrdinaryUser(Exception):
    """Nobody else can run it here; the text says why."""


def attack_as_ordinary_user(*levels: str) -> list[LevelReport]:
    """What `attack_levels` answers to nobody, on a copy of the package that nobody may read. Raises NoOrdinaryUser."""
    with tempfile.TemporaryDirectory(prefix="rakefarm-nobody-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        for package in (rakefarm, msgspec, psutil):
            source = Path(package.__path__[0])
            shutil.copytree(source, place / source.name, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        for path in place.rglob("*"):
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        home = place / "home"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        done = _as_nobody([_interpreter(place), "-c", CODE, *levels], place)
    if done.returncode:
        raise NoOrdinaryUser(f"the attacks ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
    return msgspec.json.decode(done.stdout, type=list[LevelReport])


def _interpreter(place: Path) -> str:
    """A Python that nobody may run, and that is like ours, since compiled packages are."""
    for path in (
        sys.executable,
        f"/usr/bin/python3.{sys.version_info[1]}",
        "/usr/bin/python3",
        "/usr/local/bin/python3",
    ):
        done = _as_nobody([path, "-c", "import rakefarm.server.selftest, psutil"], place)
        if not done.returncode:
            return path
    raise NoOrdinaryUser("no Python of this version can be run by nobody")


def _as_nobody(words: list[str], place: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(place), "HOME": str(place / "home")}
    try:
        return subprocess.run(
            words,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            timeout=300,
        )
    except OSError as error:
        return subprocess.CompletedProcess(words, 127, b"", str(error).encode())
