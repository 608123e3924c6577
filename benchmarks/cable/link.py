"""Two network namespaces with a cable between them whose delay, rate and loss can be set: for benchmarks, as root.

    with link() as wire:
        wire.set(Conditions(round_trip_s=0.001, rate_bps=1e9))
        wire.there.start([...])     # a server's machine
        wire.here.start([...])      # the client's

The cable is the program `relay.c` between two TUN devices, compiled when it is first used, since many kernels come
without netem. It costs the processor some microseconds a packet, so figures taken over it say "relay" beside them.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

HERE_ADDRESS, THERE_ADDRESS = "10.119.0.1", "10.119.0.2"
MTU_BYTES = 9000
"""Few packets, so that the relay keeps up with a gigabit a second."""


class NoNetwork(Exception):
    """Namespaces or TUN devices can't be made here; the text says why."""


@dataclass(frozen=True)
class Conditions:
    """Of the cable: round trip in seconds, rate in bits a second each way (0: as fast as the relay can), and the share
    of packets that are lost, or overtake another."""

    round_trip_s: float = 0.0
    rate_bps: float = 0.0
    loss: float = 0.0
    reordered: float = 0.0


@dataclass
class Machine:
    """One end: a network namespace."""

    name: str
    address: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, arguments: Sequence[str], cores: str = "") -> list[str]:
        """The command that runs `arguments` here, on these processors (as taskset has them)."""
        pinned = ["taskset", "-c", cores] if cores else []
        return ["ip", "netns", "exec", self.name, *pinned, *arguments]

    def run(self, arguments: Sequence[str], cores: str = "", **options: object) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        return subprocess.run(self.command(arguments, cores), text=True, **options)  # type: ignore[call-overload,no-any-return]

    def start(
        self, arguments: Sequence[str], cores: str = "", environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start it; it has a pipe for its input, the closing of which should end it, and one for its output. It is a
        session of its own, as daemons and other people's work are: where the scheduler shares a core among sessions
        first, as with autogroups, what is in one of them counts as one."""
        process = subprocess.Popen(
            self.command(arguments, cores),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment or os.environ),
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """End what was started here."""
        for process in self.processes:
            assert process.stdin and process.stdout
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


class Link:
    """Both ends, and the cable."""

    def __init__(self, here: Machine, there: Machine, relay: "subprocess.Popen[str]") -> None:
        self.here = here
        self.there = there
        self._relay = relay

    def set(self, conditions: Conditions) -> None:
        """Have the cable behave like this from now on."""
        assert self._relay.stdin and self._relay.stdout
        one_way_us = round(conditions.round_trip_s * 1e6 / 2)
        parts = one_way_us, round(conditions.rate_bps), round(conditions.loss * 1e6), round(conditions.reordered * 1e6)
        self._relay.stdin.write(" ".join(map(str, parts)) + "\n")
        self._relay.stdin.flush()
        if self._relay.stdout.readline() != "ready\n":
            raise NoNetwork("the relay has ended")


@contextlib.contextmanager
def link() -> Iterator[Link]:
    """Both ends and the cable, gone when the context ends. Raises NoNetwork."""
    if os.geteuid():
        raise NoNetwork("only root can make network namespaces with devices in them")
    if not shutil.which("ip") or not os.path.exists("/dev/net/tun"):
        raise NoNetwork("there is no program ip (iproute2), or no /dev/net/tun")
    mark = secrets.token_hex(3)
    here = Machine(f"rakefarm-here-{mark}", HERE_ADDRESS)
    there = Machine(f"rakefarm-there-{mark}", THERE_ADDRESS)
    with contextlib.ExitStack() as undoing, tempfile.TemporaryDirectory() as directory:
        for machine, peer in ((here, there), (there, here)):
            _ip("netns", "add", machine.name)
            undoing.callback(_ip, "netns", "delete", machine.name)
            _make_ready(machine, peer)
        relay = _start_relay(directory, here, there)
        undoing.callback(_end_relay, relay)
        undoing.callback(there.end)
        undoing.callback(here.end)
        yield Link(here, there, relay)


def _make_ready(machine: Machine, peer: Machine) -> None:
    inside = "-n", machine.name
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "tuntap", "add", "dev", "cable", "mode", "tun")
    _ip(*inside, "link", "set", "cable", "mtu", str(MTU_BYTES), "txqueuelen", "2000", "up")
    _ip(*inside, "address", "add", machine.address, "peer", peer.address, "dev", "cable")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNetwork(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _start_relay(directory: str, here: Machine, there: Machine) -> "subprocess.Popen[str]":
    program = os.path.join(directory, "relay")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay.c")
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    relay = subprocess.Popen(
        [program, here.name, "cable", there.name, "cable"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert relay.stdout
    if relay.stdout.readline() != "ready\n":
        raise NoNetwork("the relay could not start")
    return relay


def _end_relay(relay: "subprocess.Popen[str]") -> None:
    assert relay.stdin and relay.stdout
    relay.stdin.close()
    relay.wait(10)
    relay.stdout.close()


def measure_round_trip(wire: Link, count: int = 20) -> float:
    """The median round trip of a byte over TCP, in seconds."""
    echo = wire.there.start([sys.executable, "-c", _ECHO, wire.there.address])
    assert echo.stdout
    arguments = [sys.executable, "-c", _ASKER, wire.there.address, echo.stdout.readline().strip(), str(count)]
    return float(wire.here.run(arguments, capture_output=True, check=True).stdout)


def measure_rate(wire: Link, size: int = 8 << 20) -> float:
    """What a TCP connection carries from here to there, in bits a second."""
    receiver = wire.there.start([sys.executable, "-c", _RECEIVER, wire.there.address])
    assert receiver.stdout
    port = receiver.stdout.readline().strip()
    done = wire.here.run(
        [sys.executable, "-c", _SENDER, wire.there.address, port, str(size)], capture_output=True, check=True
    )
    return size * 8 / float(done.stdout)


_ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    connection = listener.accept()[0]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while data := connection.recv(1):
            connection.sendall(data)
"""
_ASKER = """
import socket, statistics, sys, time
times = []
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(int(sys.argv[3])):
        began = time.perf_counter()
        connection.sendall(b"?")
        connection.recv(1)
        times.append(time.perf_counter() - began)
print(statistics.median(times))
"""
_RECEIVER = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    connection = listener.accept()[0]
    with connection:
        while connection.recv(1 << 16):
            pass
        connection.sendall(b"!")
"""
_SENDER = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    began = time.perf_counter()
    connection.sendall(bytes(int(sys.argv[3])))
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
    print(time.perf_counter() - began)
"""
