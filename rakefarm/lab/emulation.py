"""Real servers on loopback that stand for a drawn scenario's hosts: emulated, and to be called so wherever a result is
shown. Each declares cores and a speed, and its commands only sleep (`work.c`), so two cores stand for many slots.

    declared (configuration)                  true (the file that `work` reads)
    slots, [emulate] cores, speed       ≠     speed                  for a host that is slow, or lies

All else is the real thing: listener, workers, executors, prices, the protocol. Foreign load is a file of times and busy
cores, made from the scenario when the clients begin: the server tells it as its sampler would have found it, and `work`
goes as much slower as it would beside that load and the other commands there. Round trips come from a `relay.c` between
clients and servers. Inputs are none, and bandwidth is the loopback interface's.
"""

import contextlib
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rakefarm import process
from rakefarm.lab.draw import Drawn, HostSpec, LabError
from rakefarm.lab.scenario import Scenario

if TYPE_CHECKING:
    import subprocess

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_S = 15.0
LONGEST_LOAD_S, MOST_CHANGES = 7200.0, 20_000
"""For so long, and so many times at the most, foreign load changes on an emulated host; then it stays as it is."""


def refuse(scenario: Scenario) -> None:
    """Raises LabError for what a farm on one machine can't stand for."""
    kinds = {fault.kind for fault in scenario.faults} & {"dropped", "late"}
    if kinds:
        raise LabError(f"mode farm: messages can't be {', '.join(sorted(kinds))} on loopback; use mode sim")


def bare_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without settings of whoever runs the lab, and with our package."""
    kept = {name: value for name, value in environ.items() if not name.startswith("RAKEFARM_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def compile_work(directory: str) -> str:
    """Compile `work.c` into the directory; answers the program's path. Raises LabError."""
    return _compile("work", directory)


def _compile(name: str, directory: str) -> str:
    source, program = os.path.join(os.path.dirname(__file__), f"{name}.c"), os.path.join(directory, name)
    compiler = shutil.which("cc")
    if compiler is None:
        raise LabError("emulated hosts need a C compiler, and there is no cc on the PATH")
    if process.run_with_input([compiler, "-O2", "-o", program, source], dict(os.environ), b""):
        raise LabError(f"the C compiler could not make the lab's program from {source}")
    return program


class EmulatedFarm:
    """The servers of these hosts while the context lasts; what they write is in `directory`. Entering raises LabError
    when a server does not start; leaving ends all of them. `sample_s` is how often they look at their load (0: as real
    machines do)."""

    def __init__(self, hosts: Sequence[HostSpec], program: str, directory: str, sample_s: float = 0.0) -> None:
        self.hosts = tuple(hosts)
        self.addresses: tuple[str, ...] = ()
        self._sample_s = sample_s
        self._relay: subprocess.Popen[bytes] | None = None
        self._program = program
        self._directory = directory
        self._servers: list[subprocess.Popen[bytes]] = []
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> "EmulatedFarm":
        try:
            for number, host in enumerate(self.hosts):
                self._servers.append(self._start(number, host))
            addresses = []
            for host, server in zip(self.hosts, self._servers, strict=True):
                assert server.stdout is not None
                line = server.stdout.readline().decode("utf-8", "replace")
                if not line.startswith("listening on "):
                    raise LabError(f"{host.name} of the emulated farm did not start")
                addresses.append(line.split()[2])
            self.addresses = (
                self._delayed(addresses) if any(host.round_trip_s for host in self.hosts) else tuple(addresses)
            )
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def name_of(self, address: str) -> str:
        """The host's name in the scenario."""
        return self.hosts[self.addresses.index(address)].name

    def _delayed(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Where they are reached as if from afar."""
        words = [_compile("relay", self._directory)]
        for host, address in zip(self.hosts, addresses, strict=True):
            words += [*address.rsplit(":", 1), str(round(host.round_trip_s / 2 * 1e6))]
        self._relay = process.start_background(
            words, dict(os.environ), error=os.path.join(self._directory, "relay-said")
        )
        assert self._relay.stdout is not None
        ports = [self._relay.stdout.readline().decode("ascii", "replace").strip() for _ in addresses]
        if not all(ports):
            raise LabError("the relay of the emulated farm did not start")
        return tuple([f"{address.rpartition(':')[0]}:{port}" for address, port in zip(addresses, ports, strict=True)])

    def begin(self) -> None:
        """From now on count the seconds until foreign load changes, and until hosts die that are to."""
        started_s = time.monotonic()
        for host in self.hosts:
            self._write_load(host, started_s)
        for host, server in zip(self.hosts, self._servers, strict=True):
            if host.dead_at_s < math.inf:
                timer = threading.Timer(host.dead_at_s, _kill_tree, (server.pid,))
                timer.daemon = True
                timer.start()
                self._timers.append(timer)

    def _write_load(self, host: HostSpec, started_s: float) -> None:
        """What others keep busy there, from then on; before, and for good if that is never, as at the beginning."""
        lines, time_s = [f"0 {host.foreign.at(0.0)}\n"], 0.0
        while (
            started_s < math.inf
            and (time_s := host.foreign.next_change_s(time_s)) < LONGEST_LOAD_S
            and len(lines) < MOST_CHANGES
        ):
            lines.append(f"{started_s + time_s:.6f} {host.foreign.at(time_s)}\n")
        path = os.path.join(self._directory, host.name, "bin", "load")
        with open(path + "-new", "w", encoding="ascii") as file:
            file.writelines(lines)
        os.replace(path + "-new", path)

    def _start(self, number: int, host: HostSpec) -> "subprocess.Popen[bytes]":
        place = os.path.join(self._directory, host.name)
        programs = os.path.join(place, "bin")
        os.makedirs(programs)
        shutil.copy(self._program, programs)
        with open(os.path.join(programs, "speed"), "w", encoding="ascii") as file:
            file.write(f"{host.true_speed} {host.cores} {host.slots}\n")
        self._write_load(host, math.inf)
        for name in ("log", "running"):
            path = os.path.join(programs, name)
            with open(path, "w", encoding="ascii"):
                os.chmod(path, 0o666)  # nosec B103 # started by root, a server gives commands other uids
        configuration = os.path.join(place, "server.toml")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(
                f'slots = {host.slots}\nisolation = "process"\npath = "{programs}:{SYSTEM_PATH}"\n'
                f'sandbox_directory = "{place}"\ncache_directory = "{place}/store"\n'
                f"\n[emulate]\ncores = {host.cores}\nspeed = {min(max(host.declared_speed, 0.02), 50.0)}\n"
                f'load = "{programs}/load"\nsample_s = {self._sample_s}\n'
            )
        # All of 127/8 is this machine's (ip(7)). Policies that go by names see the hosts in the scenario's order.
        address = f"127.0.{1 + number // 90}.{10 + number % 90}"
        words = [sys.executable, "-m", "rakefarm.server", "--until-eof", "-i", address, "--port", "0"]
        words += ["--config", configuration]
        variables = {**bare_environment(os.environ), "XDG_STATE_HOME": os.path.join(place, "state")}
        return process.start_background(words, variables, error=os.path.join(place, "said"))

    def _end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        started = [*self._servers, *([self._relay] if self._relay is not None else [])]
        for server in started:
            assert server.stdin is not None
            server.stdin.close()
        for server in started:
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
        + _load_text(host)
        + (f", emulated round trip {host.round_trip_s * 1000:.1f} ms" if host.round_trip_s else "")
        + (f", dies after {host.dead_at_s:g} s" if host.dead_at_s < math.inf else "")
        for address, host in zip(addresses, drawn.hosts, strict=True)
    ]


def _load_text(host: HostSpec) -> str:
    busy, change_s = host.foreign.at(0.0), host.foreign.next_change_s(0.0)
    if change_s > LONGEST_LOAD_S:
        return f", {busy:g} busy" if busy else ""
    return f", {busy:g} busy, which changes"
