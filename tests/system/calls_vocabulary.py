"""What tests of `rakefarm cc` are written in: a user's directory, and compiler calls in it."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from server_vocabulary import ROOT, Server, wait_until

CC = (sys.executable, "-m", "rakefarm.cc")
SLOW = """
constexpr long slow(long n) { long s = 0; for (long i = 0; i < n; i++) s += i % 7; return s; }
constexpr long value = slow(700000);
"""
SLOWLY = ("-std=c++17", "-fconstexpr-loop-limit=2000000000", "-fconstexpr-ops-limit=200000000000")
Files = dict[str, tuple[bytes, int]]


class Calls:
    """A user's directory, and compiler calls in it."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self.scratch = scratch
        self.hosts: list[Server] = []
        self.result_cache_size = "0"
        self.prefix: tuple[str, ...] = ()
        """Words before each call: programs that execute their arguments."""
        self.extra: dict[str, str] = {}

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.scratch),
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
            "XDG_STATE_HOME": str(self.scratch / "state"),
            "RAKEFARM_CC_DIRECTORY": str(self.scratch / "run"),
            "RAKEFARM_HOSTS": ",".join(server.address for server in self.hosts),
            "RAKEFARM_RESULT_CACHE_SIZE": self.result_cache_size,
            "LC_ALL": "C",
            **self.extra,
            **(env or {}),
        }

    def write(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def start(self, *words: str, env: Mapping[str, str] | None = None, where: str = ".") -> "subprocess.Popen[bytes]":
        variables = self.environment(env)
        return subprocess.Popen(
            [*self.prefix, *CC, *words],
            cwd=self.path / where,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call(self, *words: str, env: Mapping[str, str] | None = None, where: str = ".") -> tuple[int, bytes, bytes]:
        process = self.start(*words, env=env, where=where)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def files(self) -> Files:
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): (path.read_bytes(), path.stat().st_mode) for path in found}

    def check_same(self, *words: str, where: str = ".", status: int = 0) -> None:
        """The call makes, says and answers on the farm what it does here."""
        before = self.files()
        here = (*self.call(*words, where=where, env={"RAKEFARM_CC": "off"}), self.files())
        for name in self.files().keys() - before.keys():
            (self.path / name).unlink()
        there = (*self.call(*words, where=where), self.files())
        assert there[0] == status
        assert there == here

    def statistics(self) -> dict[str, int]:
        status, out, err = self.call("--statistics")
        assert status == 0, err
        counts = {}
        for line in out.decode().splitlines():
            found = re.match(r" *(\d+) +(?:(compiled|taken|served|run|files)|on (\S+)|(\w+):)", line)
            if found:
                counts[found[2] or found[3] or found[4]] = int(found[1])
        return counts


@contextlib.contextmanager
def open_calls(tmp_path: Path) -> Iterator[Calls]:
    """A directory without hosts; the helper is ended in the end."""
    path = tmp_path / "project"
    path.mkdir()
    scratch = Path(tempfile.mkdtemp(prefix="rfcc-"))  # a socket's path is short
    made = Calls(path, scratch)
    try:
        yield made
        made.call("--stop")
        wait_until(lambda: not (scratch / "run/socket").exists(), "the helper is gone")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
