"""What the tests of launched farms are written in: a user who runs `rakefarm up` and `rakefarm run`, and what is told."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from server_vocabulary import ROOT, is_alive, wait_until

END_S = 60.0
MAKEFILE = """\
OBJECTS = $(patsubst %.c,%.o,$(wildcard f*.c))
all: $(OBJECTS)
%.o: %.c
\t$(CC) -O2 -c $<
fail:
\texit 7
"""


class Launched:
    """A `rakefarm` command that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", place: Path) -> None:
        self.process = process
        self.place = place

    @property
    def out(self) -> str:
        return (self.place / "out").read_text()

    @property
    def err(self) -> str:
        return (self.place / "err").read_text()

    def wait_for(self, text: str) -> None:
        """Until it has said so, on either stream."""
        wait_until(
            lambda: text in self.out + self.err or self.process.poll() is not None, f"{text!r} in {self.err}", END_S
        )
        assert text in self.out + self.err, (self.out, self.err)

    def wait_up(self) -> tuple[list[str], Path]:
        """The hosts and the key file, once it has told them."""
        self.wait_for("export RAKEFARM_HOSTS=")
        match = re.search(r"^export RAKEFARM_HOSTS=(\S+) RAKEFARM_KEY_FILE=(\S+)$", self.out, re.MULTILINE)
        assert match, self.out
        hosts = match[1].split(",")
        assert f"# HOSTS = {' '.join(hosts)}\n" in self.out
        self.wait_for("ends them")
        return hosts, Path(match[2])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(END_S)

    def one_line(self) -> str:
        """What it complained of, in one line, once it has ended."""
        self.process.wait(END_S)
        (line,) = self.err.splitlines()
        return line


class User:
    """Somebody with a home of her own."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self.home = home
        (home / "tmp").mkdir(parents=True)
        self.environ = {
            "PATH": environ.get("PATH", os.environ["PATH"]),
            **{name: environ[name] for name in ("SLURM_CONF", "LD_LIBRARY_PATH") if name in environ},
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_STATE_HOME": str(home / "state"),
            "RAKEFARM_RESULT_CACHE_SIZE": "0",
            "LC_ALL": "C",
        }
        self._count = 0
        self.program(home / "rakeserver")

    def program(self, path: Path, before: str = "", after: str = "") -> str:
        """A script that starts the server, as an installation's does; shell before and after it."""
        start = f'{sys.executable} -m rakefarm.server "$@"'
        path.write_text(f"#!/bin/sh\n{before}\n{start if after else f'exec {start}'}\n{after}\n")
        path.chmod(0o755)
        return str(path)

    def start(self, *words: str, prefix: tuple[str, ...] = (), where: Path | None = None) -> Launched:
        """Start `rakefarm` with these words; --program is the script of `program`, unless another is named."""
        self._count += 1
        place = self.home / f"run-{self._count}"
        place.mkdir()
        if "--program" not in words:
            words = (words[0], "--program", str(self.home / "rakeserver"), *words[1:])
        with open(place / "out", "wb") as out, open(place / "err", "wb") as err:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "rakefarm", *words],
                env=self.environ,
                cwd=where or place,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return Launched(process, place)

    def run(self, *words: str, prefix: tuple[str, ...] = (), where: Path | None = None) -> Launched:
        """The same, until it has ended."""
        launched = self.start(*words, prefix=prefix, where=where)
        launched.process.wait(END_S)
        return launched

    def build_everywhere(self, hosts: list[str], key_file: Path) -> set[str]:
        """Build something of many actions; the hosts that had one."""
        place = self.home / f"build-{self._count}"
        place.mkdir()
        actions = "".join(f"\tremote-sleep 0.4; echo {number} > out{number}\n" for number in range(4 * len(hosts)))
        (place / "Rakefile").write_text(f"all:\n{actions}")
        done = subprocess.run(
            [sys.executable, "-m", "rakefarm.client", "--json", "--fallback", "never"],
            env={**self.environ, "RAKEFARM_HOSTS": ",".join(hosts), "RAKEFARM_KEY_FILE": str(key_file)},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=END_S,
        )
        assert done.returncode == 0, done.stderr
        assert all((place / f"out{number}").exists() for number in range(4 * len(hosts)))
        return {host for host in hosts if f'"{host}"' in done.stdout and _won(done.stdout, host)}

    def project(self) -> Path:
        """A directory for make."""
        place = self.home / "project"
        place.mkdir(exist_ok=True)
        (place / "Makefile").write_text(MAKEFILE)
        for number in range(12):
            (place / f"f{number}.c").write_text(f"int f{number}(int x) {{ return x * {number}; }}\n")
        return place


def _won(events: str, host: str) -> bool:
    import json

    told = [json.loads(line) for line in events.splitlines()]
    return any(each.get("event") == "action_finished" and each.get("host") == host for each in told)


def holds_no_token(pids: list[int], key_file: Path) -> bool:
    """Whether none of these processes has the farm's token among its arguments or variables."""
    token = key_file.read_bytes().split()[1]
    for pid in filter(is_alive, pids):
        for name in ("cmdline", "environ"):
            try:
                if token in Path(f"/proc/{pid}/{name}").read_bytes():
                    return False
            except OSError:
                continue
    return True
