"""Real servers on loopback that stand for uneven machines: each declares cores and a speed, its commands only sleep.

A command `work SECONDS TAG` sleeps SECONDS / speed (`work.c`), so a command takes a slot but hardly any core, and two
cores stand for thirty slots. Everything else is the real thing: listener, workers, executors, prices, the protocol.

    declared (configuration)            true (the file that `work` reads)
    slots, [emulate] cores, speed   ≠   speed                               for a host that is slow, or lies
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import psutil
from farm import ENVIRONMENT
from market_measures import Interval

import rakefarm

BARE_ENVIRONMENT = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("RAKEFARM_")}
"""Without settings of whoever runs the benchmark."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CORES = (1, 2, 2, 3, 4, 4, 6)
SLOTS_A_HOST = (2.7, 3.3)
"""Ten hosts have about thirty slots, whatever the seed."""
TENFOLD = 10.0
STOP_S = 15.0


@dataclass(frozen=True)
class EmulatedHost:
    """A machine: its cores, the speed that it declares and its true one, in seconds of work a second and core."""

    cores: int
    declared_speed: float
    true_speed: float

    @property
    def capacity(self) -> float:
        """Seconds of work that it can do in a second."""
        return self.cores * self.true_speed


def draw_hosts(count: int, draw: random.Random) -> list[EmulatedHost]:
    """`count` honest hosts of 1 to 6 cores and speeds from 0.5 to 2, three cores a host on average."""
    while True:
        cores = [draw.choice(CORES) for _ in range(count)]
        if SLOTS_A_HOST[0] <= sum(cores) / count <= SLOTS_A_HOST[1] or count < 3:
            break
    speeds = [round(2.0 ** draw.uniform(-1.0, 1.0), 2) for _ in range(count)]
    return [EmulatedHost(number, speed, speed) for number, speed in zip(cores, speeds, strict=True)]


def slowed(host: EmulatedHost) -> EmulatedHost:
    """The host, doing a tenth of what it declares."""
    return replace(host, true_speed=host.declared_speed / TENFOLD)


def lying(host: EmulatedHost) -> EmulatedHost:
    """The host, declaring ten times what it does."""
    return replace(host, declared_speed=host.true_speed * TENFOLD)


def compile_work(directory: str) -> str:
    """Compile `work.c` into `directory`; answers the program's path. Raises CalledProcessError."""
    source = os.path.join(os.path.dirname(rakefarm.__file__), "lab", "work.c")
    program = os.path.join(directory, "work")
    subprocess.run(["cc", "-O2", "-Wall", "-o", program, source], check=True)
    return program


class EmulatedFarm:
    """The servers of these hosts, from entering the context to leaving it, with all that they write in `directory`.

    Entering raises RuntimeError when a server does not start; leaving ends them all, those that were killed included.
    """

    def __init__(self, hosts: Sequence[EmulatedHost], program: str, directory: str) -> None:
        """`program` is the compiled `work`."""
        self.hosts = tuple(hosts)
        self.addresses: tuple[str, ...] = ()
        self._program = program
        self._directory = directory
        self._servers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "EmulatedFarm":
        try:
            self._servers = [self._start(number, host) for number, host in enumerate(self.hosts)]
            lines = [server.stdout.readline() for server in self._servers if server.stdout]
            for number, line in enumerate(lines):
                if not line.startswith("listening on "):
                    raise RuntimeError(f"host {number} of the emulated farm did not start:\n{self._said_by(number)}")
            self.addresses = tuple(line.split()[2] for line in lines)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def kill(self, number: int) -> None:
        """Kill a host's server and all below it at once, as a power cut would. Its listener first: it replaces."""
        parent = psutil.Process(self._servers[number].pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def worked(self) -> dict[tuple[str, str], list[Interval]]:
        """What truly ran to its end, by address and tag, in the order of the ends."""
        found: dict[tuple[str, str], list[Interval]] = {}
        for number, address in enumerate(self.addresses):
            path = os.path.join(self._place(number), "bin", "log")
            if not os.path.exists(path):
                continue
            with open(path, encoding="ascii") as file:
                for line in file:
                    tag, start, end = line.split()
                    found.setdefault((address, tag), []).append(Interval(float(start), float(end)))
        return found

    def _place(self, number: int) -> str:
        return os.path.join(self._directory, f"host{number}")

    def _said_by(self, number: int) -> str:
        with open(os.path.join(self._place(number), "said"), encoding="utf-8", errors="replace") as file:
            return file.read()[-1000:]

    def _start(self, number: int, host: EmulatedHost) -> "subprocess.Popen[str]":
        place = self._place(number)
        programs = os.path.join(place, "bin")
        os.makedirs(programs)
        shutil.copy(self._program, programs)
        with open(os.path.join(programs, "speed"), "w", encoding="ascii") as file:
            file.write(f"{host.true_speed}\n")
        log = os.path.join(programs, "log")
        with open(log, "w", encoding="ascii"):
            os.chmod(log, 0o666)  # started by root, a server gives commands other uids
        configuration = os.path.join(place, "server.toml")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(
                f'slots = {host.cores}\nisolation = "process"\npath = "{programs}:{SYSTEM_PATH}"\n'
                f'sandbox_directory = "{place}"\ncache_directory = "{place}/store"\n'
                f"\n[emulate]\ncores = {host.cores}\nspeed = {host.declared_speed}\nbusy_cores = 0.0\n"
            )
        with open(os.path.join(place, "said"), "wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "rakefarm.server", "--until-eof", "--port", "0", "--config", configuration],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**BARE_ENVIRONMENT, "XDG_STATE_HOME": os.path.join(place, "state")},
                text=True,
            )

    def _end(self) -> None:
        for server in self._servers:
            if server.stdin:
                server.stdin.close()
        for server in self._servers:
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            if server.stdout:
                server.stdout.close()
