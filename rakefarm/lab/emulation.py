"""Real servers on loopback that stand for a drawn scenario's hosts: emulated, and to be called so wherever a result is
shown. Each declares cores and a speed, and its commands only sleep (`work.c`), so two cores stand for many slots.

    declared (configuration)                  true (the file that `work` reads)
    slots, [emulate] cores, speed       ≠     speed                  for a host that is slow, or lies

All else is the real thing: listener, workers, executors, prices, the protocol. Foreign load is declared as it is at the
start, and slows commands as if every slot were taken; an experiment, where it would change, is refused. Round trips and
bandwidth are those of the loopback interface.
"""

import contextlib
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rakefarm import process
from rakefarm.lab.draw import Drawn, HostSpec, LabError
from rakefarm.lab.scenario import Scenario
from rakefarm.market.curve import rate

if TYPE_CHECKING:
    import subprocess

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_S = 15.0


def refuse(scenario: Scenario) -> None:
    """Raises LabError for what a farm on one machine can't stand for."""
    kinds = {fault.kind for fault in scenario.faults} & {"dropped", "late"}
    if kinds:
        raise LabError(f"mode farm: messages can't be {', '.join(sorted(kinds))} on loopback; use mode sim")
    if scenario.foreign.kind != "none":
        raise LabError('mode farm: commands there only sleep, so foreign.kind has to be "none"; use mode sim')


def bare_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without settings of whoever runs the lab, and with our package."""
    kept = {name: value for name, value in environ.items() if not name.startswith("RAKEFARM_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def compile_work(directory: str) -> str:
    """Compile `work.c` into the directory; answers the program's path. Raises LabError."""
    source, program = os.path.join(os.path.dirname(__file__), "work.c"), os.path.join(directory, "work")
    compiler = shutil.which("cc")
    if compiler is None:
        raise LabError("emulated hosts need a C compiler, and there is no cc on the PATH")
    if process.run_with_input([compiler, "-O2", "-o", program, source], dict(os.environ), b""):
        raise LabError(f"the C compiler could not make the lab's program from {source}")
    return program


class EmulatedFarm:
    """The servers of these hosts while the context lasts; what they write is in `directory`. Entering raises LabError
    when a server does not start; leaving ends all of them."""

    def __init__(self, hosts: Sequence[HostSpec], program: str, directory: str) -> None:
        self.hosts = tuple(hosts)
        self.addresses: tuple[str, ...] = ()
        self._program = program
        self._directory = directory
        self._servers: list[subprocess.Popen[bytes]] = []
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> "EmulatedFarm":
        try:
            for host in self.hosts:
                self._servers.append(self._start(host))
            addresses = []
            for host, server in zip(self.hosts, self._servers, strict=True):
                assert server.stdout is not None
                line = server.stdout.readline().decode("utf-8", "replace")
                if not line.startswith("listening on "):
                    raise LabError(f"{host.name} of the emulated farm did not start")
                addresses.append(line.split()[2])
            self.addresses = tuple(addresses)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def name_of(self, address: str) -> str:
        """The host's name in the scenario."""
        return self.hosts[self.addresses.index(address)].name

    def begin_faults(self) -> None:
        """From now on count the seconds until hosts die that are to."""
        for host, server in zip(self.hosts, self._servers, strict=True):
            if host.dead_at_s < math.inf:
                timer = threading.Timer(host.dead_at_s, _kill_tree, (server.pid,))
                timer.daemon = True
                timer.start()
                self._timers.append(timer)

    def _start(self, host: HostSpec) -> "subprocess.Popen[bytes]":
        place = os.path.join(self._directory, host.name)
        programs, busy = os.path.join(place, "bin"), host.foreign.at(0.0)
        os.makedirs(programs)
        shutil.copy(self._program, programs)
        with open(os.path.join(programs, "speed"), "w", encoding="ascii") as file:
            file.write(f"{rate(host.true_speed, host.cores, busy, host.slots)}\n")
        log = os.path.join(programs, "log")
        with open(log, "w", encoding="ascii"):
            os.chmod(log, 0o666)  # nosec B103 # started by root, a server gives commands other uids
        configuration = os.path.join(place, "server.toml")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(
                f'slots = {host.slots}\nisolation = "process"\npath = "{programs}:{SYSTEM_PATH}"\n'
                f'sandbox_directory = "{place}"\ncache_directory = "{place}/store"\n'
                f"\n[emulate]\ncores = {host.cores}\nspeed = {min(max(host.declared_speed, 0.02), 50.0)}\n"
                f"busy_cores = {busy}\n"
            )
        words = [sys.executable, "-m", "rakefarm.server", "--until-eof", "--port", "0", "--config", configuration]
        variables = {**bare_environment(os.environ), "XDG_STATE_HOME": os.path.join(place, "state")}
        return process.start_background(words, variables, error=os.path.join(place, "said"))

    def _end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for server in self._servers:
            assert server.stdin is not None
            server.stdin.close()
        for server in self._servers:
            if not process.wait_at_most(server, STOP_S):
                server.kill()
                server.wait()
            if server.stdout is not None:
                server.stdout.close()


def _kill_tree(pid: int) -> None:
    """A server and all below it, as a power cut would: its listener first, which replaces."""
    for each in [pid, *_below(pid)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)


def _below(pid: int) -> Iterator[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return
    for child in children:
        yield child
        yield from _below(child)


def describe(drawn: Drawn, addresses: Sequence[str]) -> list[str]:
    """A line for each host."""
    return [
        f"{address}  {host.name}  {host.cores} cores  declared speed {host.declared_speed:.2f}"
        + (f", truly {host.true_speed:.2f}" if host.true_speed != host.declared_speed else "")
        + (f", {host.foreign.at(0.0):g} busy" if host.foreign.at(0.0) else "")
        + (f", dies after {host.dead_at_s:g} s" if host.dead_at_s < math.inf else "")
        for address, host in zip(addresses, drawn.hosts, strict=True)
    ]
