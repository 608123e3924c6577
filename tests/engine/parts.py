"""The real parts of an engine, each started as a user would start it: PostgreSQL of Debian, BuildGrid of PyPI.

BuildGrid gets an environment of its own, made for the test run, or the one that RAKEFARM_BUILDGRID names.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
READY_S = 60.0
INSTALL_S = 480.0
USER = "postgres"
"""PostgreSQL refuses to run as root."""


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens at {port}: {log.read_text()[-4000:]}")


def postgresql_programs() -> Path:
    """Where Debian puts them, the newest first; skips where they can't be had."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and os.geteuid() == 0 and shutil.which("apt-get"):
        for words in (["update"], ["install", "--yes", "--no-install-recommends", "postgresql"]):
            subprocess.run(
                ["apt-get", "--quiet", "--quiet", *words],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                timeout=INSTALL_S,
                capture_output=True,
            )
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not here, and can't be installed: apt-get install postgresql")
    return found[-1].parent


def buildgrid_program(place: Path) -> Path:
    """`bgd`, installed below `place`; skips where it can't be."""
    if named := os.environ.get("RAKEFARM_BUILDGRID"):
        return Path(named) / "bin" / "bgd"
    program = place / "buildgrid" / "bin" / "bgd"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place / "buildgrid")], check=True, timeout=INSTALL_S)
        pip = [str(program.parent / "pip"), "install", "--quiet", "buildgrid>=0.4", "psycopg2-binary"]
        done = subprocess.run(pip, capture_output=True, timeout=INSTALL_S)
        if done.returncode:
            pytest.skip(f"BuildGrid can't be installed: {done.stderr.decode()[-300:]}")
    return program


class PostgreSQL:
    """A cluster of its own in a directory, on loopback, for as long as the tests run."""

    def __init__(self, place: Path) -> None:
        self._programs = postgresql_programs()
        self._place = place / "postgresql"
        self._place.mkdir()
        self.port = free_port()
        self._user: dict[str, object] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam(USER)
            os.chown(self._place, account.pw_uid, account.pw_gid)
            self._user = {"user": USER, "group": account.pw_gid, "extra_groups": []}
        data = self._place / "data"
        initdb = [str(self._programs / "initdb"), "-D", str(data), "-U", "buildgrid", "--auth=trust", "--no-sync"]
        subprocess.run([*initdb, "--encoding=UTF8"], check=True, capture_output=True, cwd="/", **self._user)  # type: ignore[call-overload]
        words = [str(self._programs / "postgres"), "-D", str(data), "-p", str(self.port), "-h", "127.0.0.1"]
        words += ["-k", str(self._place), "-c", "fsync=off", "-c", "max_connections=300"]
        self._log = place / "postgresql.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, cwd="/", **self._user)  # type: ignore[call-overload]
        wait_for_port(self.port, self.process, self._log)

    def make_database(self, name: str) -> str:
        """A new one; answers its URL. psycopg2, since with psycopg 3 every notification takes the whole of its wait."""
        words = [str(self._programs / "createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "buildgrid", name]
        deadline = time.monotonic() + READY_S
        while subprocess.run(words, capture_output=True, cwd="/").returncode:
            assert time.monotonic() < deadline, "no database can be made"
            time.sleep(0.1)
        return f"postgresql+psycopg2://buildgrid@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """At once: nobody needs what is in it."""
        self.process.send_signal(3)
        self.process.wait(30)


class BuildGrid:
    """One server: scheduler, store and caches, which a restart finds again."""

    def __init__(
        self,
        program: Path,
        place: Path,
        database: str,
        *,
        channel: str = "    insecure-mode: true",
        authorization: str = "authorization:\n  method: none",
        scheme: str = "grpc",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"{scheme}://localhost:{self.port}"
        self.log = place / "buildgrid.log"
        self._program = program
        self._config = place / "buildgrid.yml"
        self._environment = {**os.environ, **(environment or {})}
        text = (HERE / "buildgrid.yml").read_text()
        for name, value in (
            ("ADDRESS", f"127.0.0.1:{self.port}"),
            ("CHANNEL", channel),
            ("AUTHORIZATION", authorization),
            ("DATABASE", database),
            ("DIRECTORY", str(place)),
        ):
            text = text.replace(f"@{name}@", value)
        self._config.write_text(text)
        migrate = [str(program), "migrate", "apply", database]
        subprocess.run(migrate, check=True, capture_output=True, cwd="/", timeout=READY_S)
        self.start()

    def start(self) -> None:
        """Or start again, after `kill`."""
        with self.log.open("ab") as log:
            words = [str(self._program), "server", "start", str(self._config)]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=self._environment, cwd="/")
        wait_for_port(self.port, self.process, self.log)

    def kill(self) -> None:
        """As a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As an administrator does."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
