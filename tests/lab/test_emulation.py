"""Emulated hosts are what they pretend to be: shared cores, foreign load that changes, round trips."""

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs
from server_vocabulary import open_to_commands

from rakefarm import process
from rakefarm.config import Emulation
from rakefarm.lab.draw import Drawn, draw
from rakefarm.lab.emulation import EmulatedFarm, compile_work, describe
from rakefarm.lab.foreign import NoLoad, Steps
from rakefarm.lab.loopback import scenario_of
from rakefarm.server.load import PretendedLoad, Sampler

Work = Callable[[str, str], float]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    compile_work(str(tmp_path))
    return tmp_path


def run_work(place: Path, count: int, seconds: float) -> list[float]:
    """So many at one time; answers how long each took, as its log says."""
    log = place / "log"
    log.unlink(missing_ok=True)
    running = [subprocess.Popen([place / "work", str(seconds), str(tag)]) for tag in range(count)]
    assert [each.wait(60) for each in running] == [0] * count
    lines = [line.split() for line in log.read_text().splitlines()]
    return [float(end) - float(start) for _, start, end in lines]


def shortest(measure: Callable[[], float], least: float, most: float) -> None:
    """It is never less than `least`, and not more than `most` once the machine has a moment for it."""
    took = []
    for _ in range(20):
        took.append(measure())
        assert took[-1] >= least
        if took[-1] <= most:
            return
    raise AssertionError(f"{took}, all above {most}")


def test_commands_share_the_cores_that_there_are(place: Path) -> None:
    (place / "speed").write_text("2 2 8\n")
    shortest(lambda: max(run_work(place, 2, 0.6)), 0.3, 0.4)

    def together() -> float:
        began = time.monotonic()
        run_work(place, 8, 0.8)
        return time.monotonic() - began

    # 6.4 s of work for two cores that do 2 in a second each; who comes is noticed by the others a moment later.
    shortest(together, 1.5, 2.2)


def test_who_was_killed_takes_no_share(place: Path) -> None:
    (place / "speed").write_text("1 1 8\n")
    killed = [subprocess.Popen([place / "work", "60", "x"]) for _ in range(3)]
    deadline = time.monotonic() + 10
    while not (place / "running").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for each in killed:
        each.kill()
        each.wait()
    shortest(lambda: run_work(place, 1, 0.3)[0], 0.3, 0.4)


def test_foreign_load_that_changes_slows_a_command_from_then_on(place: Path) -> None:
    (place / "speed").write_text("1 1 1\n")
    (place / "load").write_text("0 0\n")
    shortest(lambda: run_work(place, 1, 0.4)[0], 0.4, 0.5)

    def slowed() -> float:
        """Half a core is left after 0.2 s: the other 0.2 s of work take twice as long."""
        (place / "load").write_text(f"0 0\n{time.monotonic() + 0.2:.6f} 1\n")
        return run_work(place, 1, 0.4)[0]

    shortest(slowed, 0.55, 0.66)


def test_a_server_tells_of_the_load_that_it_pretends(tmp_path: Path) -> None:
    path = tmp_path / "load"
    pretended = PretendedLoad(str(path))
    assert pretended.at(5.0) == 0.0
    path.write_text("0 1.5\n10 3\n20 0\n")
    assert [pretended.at(time_s) for time_s in (0.0, 9.9, 10.0, 25.0)] == [1.5, 1.5, 3.0, 0.0]
    path.write_text("nonsense\n")
    assert pretended.at(10.0) == 3.0, "what was understood holds"
    path.write_text(f"0 0\n{time.monotonic() - 1} 2\n")
    load = Sampler(Emulation(cores=4, load=str(path))).sample(1)
    assert (load.cores, load.busy, load.busy_in_all) == (4, 2.0, 3.0)


@pytest.fixture
def echo() -> Iterator[tuple[int, Callable[[], socket.socket]]]:
    """A listener, and what takes its next connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener.getsockname()[1], lambda: listener.accept()[0]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Callable[[int, float], int]]:
    """`relay(port, round_trip_s)` answers the port that leads there."""
    from rakefarm.lab.emulation import _compile

    program = _compile("relay", str(tmp_path))
    started = []

    def start(port: int, round_trip_s: float) -> int:
        words = [program, "127.0.0.1", str(port), str(round(round_trip_s / 2 * 1e6))]
        started.append(process.start_background(words, dict(os.environ)))
        assert started[-1].stdout is not None
        return int(started[-1].stdout.readline())

    yield start
    for each in started:
        assert each.stdin is not None and each.stdout is not None
        each.stdin.close()
        assert each.wait(10) == 0
        each.stdout.close()


@pytest.mark.parametrize("round_trip_s", [0.002, 0.02])
def test_a_relay_delays_each_way(
    relay: Callable[[int, float], int], echo: tuple[int, Callable[[], socket.socket]], round_trip_s: float
) -> None:
    port, accept = echo
    with socket.create_connection(("127.0.0.1", relay(port, round_trip_s)), 10) as here, accept() as there:
        for end in (here, there):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(10)

        def there_and_back() -> float:
            began = time.monotonic()
            here.sendall(b"?")
            assert there.recv(10) == b"?"
            there.sendall(b"!")
            assert here.recv(10) == b"!"
            return time.monotonic() - began

        shortest(there_and_back, round_trip_s, round_trip_s + 0.008)


def test_a_relay_carries_everything_and_the_end(
    relay: Callable[[int, float], int], echo: tuple[int, Callable[[], socket.socket]]
) -> None:
    port, accept = echo
    data = os.urandom(8 << 20)  # more than the relay keeps
    with socket.create_connection(("127.0.0.1", relay(port, 0.01)), 10) as here, accept() as there:
        here.setblocking(True)
        there.settimeout(20)
        sender = subprocess.Popen(
            [sys.executable, "-c", "import os, sys; os.dup2(int(sys.argv[1]), 1); sys.stdout.buffer.write(sys.stdin.buffer.read())", str(here.fileno())],
            stdin=subprocess.PIPE, pass_fds=[here.fileno()],
        )  # fmt: skip
        assert sender.stdin is not None
        sender.stdin.write(data)
        sender.stdin.close()
        received = bytearray()
        while len(received) < len(data):
            piece = there.recv(1 << 20)
            assert piece
            received += piece
        assert sender.wait(20) == 0 and received == data
        here.shutdown(socket.SHUT_WR)
        assert there.recv(1) == b""
        there.sendall(b"still here")
        there.shutdown(socket.SHUT_WR)
        here.settimeout(10)
        assert here.recv(100) == b"still here" and here.recv(1) == b""


def test_a_port_where_nobody_listens_refuses(relay: Callable[[int, float], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", relay(port, 0.001)), 10) as here:
        here.settimeout(10)
        if not here.recv(1):
            raise ConnectionResetError


def small_farm(**changes: object) -> Drawn:
    drawn = draw(scenario_of(2, ("alike",)), 1)
    return structs.replace(drawn, hosts=tuple([structs.replace(host, **changes) for host in drawn.hosts]))


def test_a_farm_far_away_is_as_far_as_it_says(tmp_path: Path) -> None:
    drawn = small_farm(round_trip_s=0.03, foreign=Steps([0.0, 1.0], [0.5, 0.0]))
    assert "emulated round trip 30.0 ms" in describe(drawn, ["a", "b"])[0]
    assert "0.5 busy, which changes" in describe(drawn, ["a", "b"])[0]
    assert "busy" not in describe(small_farm(foreign=NoLoad()), ["a", "b"])[0]
    open_to_commands(tmp_path)
    with EmulatedFarm(drawn.hosts, compile_work(str(tmp_path)), str(tmp_path)) as farm:
        farm.begin()
        assert list(farm.addresses) == sorted(farm.addresses), "in the order of the scenario"
        (tmp_path / "Rakefile").write_text("all:\n\tremote-work 0.01 x\n\t\trequires\n")
        words = [sys.executable, "-m", "rakefarm.client", "-C", str(tmp_path), "--hosts", ",".join(farm.addresses)]
        variables = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        began = time.monotonic()
        done = subprocess.run([*words, "--progress", "none"], env=variables, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began > 3 * 0.03  # introduction, question, slot, action
    assert all(math.isfinite(host.round_trip_s) for host in farm.hosts)
