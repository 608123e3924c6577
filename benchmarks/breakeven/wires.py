"""What the cable does to a question and its answer, to a large file, and to many small actions."""

import csv
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from breakeven import programs
from cable.link import Conditions, Link
from farm import ENVIRONMENT

DATA = "wires.csv"
QUESTIONS = 150
WINDOWS = (16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 0)
"""Socket buffers in bytes; 0 leaves them to the kernel."""
ROUND_TRIPS_S = (0.0001, 0.001, 0.005, 0.02)
LOSSES = (0.0, 0.01, 0.03)
NOOPS = 60
RETRY_S = 0.2
"""The shortest retransmission time-out of TCP on Linux: the fair choice for the datagrams, too."""


@dataclass(frozen=True)
class Figure:
    """One measured figure: of which experiment, which way, at which round trip (seconds), loss and further setting, and
    its value (seconds, bits a second, or a share)."""

    experiment: str
    way: str
    round_trip_s: float
    loss: float
    setting: float
    value: float


def measure(wire: Link, quick: bool) -> list[Figure]:
    """All experiments."""
    count = QUESTIONS // 3 if quick else QUESTIONS
    return [*questions(wire, count), *windows(wire, quick), *actions(wire, quick)]


def questions(wire: Link, count: int) -> Iterator[Figure]:
    """A small question and its answer: ours, over HTTP/1.1 on a kept connection, and as datagrams sent again after
    RETRY_S without an answer, as somebody would have to write who used UDP."""
    with _Servers(wire) as (quote_address, http_port, datagram_port):
        for loss in LOSSES:
            wire.set(Conditions(0.001, 1e9, loss))
            for way, arguments in (
                ("rakefarm", [programs.ASK_RAKEFARM, quote_address]),
                ("http", [programs.ASK_HTTP, wire.there.address, http_port]),
                ("udp", [programs.ASK_UDP, wire.there.address, datagram_port]),
            ):
                done = wire.here.run(
                    [sys.executable, "-c", *arguments, str(count), str(RETRY_S)],
                    stdout=subprocess.PIPE,
                    check=True,
                    env=ENVIRONMENT,
                )
                times = sorted(float(word) for word in done.stdout.split())
                yield Figure("question", way, 0.001, loss, 50.0, statistics.median(times))
                yield Figure("question", way, 0.001, loss, 99.0, times[min(len(times) - 1, round(0.99 * len(times)))])


class _Servers:
    """A rakefarm server, an HTTP server and a datagram echo, behind the cable."""

    def __init__(self, wire: Link) -> None:
        self._there = wire.there
        self._directory = tempfile.TemporaryDirectory(prefix="rakefarm-wires-")

    def __enter__(self) -> tuple[str, str, str]:
        there, environment = self._there, {**ENVIRONMENT, "XDG_CACHE_HOME": self._directory.name}
        arguments = ["--until-eof", "-i", there.address, "--port", "0", "--insecure", "--slots", "1"]
        server = there.start([sys.executable, "-m", "rakefarm.server", *arguments], environment=environment)
        http = there.start([sys.executable, "-c", programs.SERVE_HTTP, there.address])
        echo = there.start([sys.executable, "-c", programs.SERVE_UDP, there.address])
        assert server.stdout and http.stdout and echo.stdout
        return server.stdout.readline().split()[2], http.stdout.readline().strip(), echo.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self._there.end()
        self._directory.cleanup()


def windows(wire: Link, quick: bool) -> Iterator[Figure]:
    """What one connection carries, by the size of the buffers at both ends."""
    for round_trip_s in (0.001, 0.02) if quick else (0.0002, 0.001, 0.005, 0.02, 0.05):
        wire.set(Conditions(round_trip_s, 1e9))
        for window in WINDOWS:
            receiver = wire.there.start([sys.executable, "-c", programs.RECEIVE, wire.there.address, str(window)])
            assert receiver.stdout
            port = receiver.stdout.readline().strip()
            seconds = 0.5 if quick else 1.0
            arguments = [sys.executable, "-c", programs.SEND, wire.there.address, port, str(window), str(seconds)]
            done = wire.here.run(arguments, capture_output=True, check=True)
            yield Figure("window", "tcp", round_trip_s, 0.0, window, float(done.stdout))


def actions(wire: Link, quick: bool) -> Iterator[Figure]:
    """Actions that do nothing, by round trip, one after the other and several at a time: what an acknowledged exchange
    costs an action, and what it would gain if the next were already there."""
    with tempfile.TemporaryDirectory(prefix="rakefarm-wires-") as directory:
        with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
            file.write("nothing:\n" + "\tremote-true\n" * NOOPS)
        for slots in (1, 4):
            environment = {**ENVIRONMENT, "XDG_CACHE_HOME": directory}
            arguments = ["--until-eof", "-i", wire.there.address, "--port", "0", "--insecure", "--slots", str(slots)]
            server = wire.there.start([sys.executable, "-m", "rakefarm.server", *arguments], environment=environment)
            assert server.stdout
            address = server.stdout.readline().split()[2]
            for round_trip_s in random.Random(slots).sample(ROUND_TRIPS_S, len(ROUND_TRIPS_S)):
                wire.set(Conditions(round_trip_s, 1e9))
                seconds = min(_build(wire, directory, address) for _ in range(2 if quick else 5))
                yield Figure("actions", f"{slots} at once", round_trip_s, 0.0, slots, seconds / NOOPS)
            wire.there.end()


def _build(wire: Link, directory: str, address: str) -> float:
    command = [sys.executable, "-m", "rakefarm.client", "--progress", "none", "--insecure", "--hosts", address]
    started = time.perf_counter()
    subprocess.run(
        wire.here.command(command),
        cwd=directory,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def write(directory: str, figures: list[Figure]) -> None:
    """Write them as CSV."""
    with open(os.path.join(directory, DATA), "w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Figure.__dataclass_fields__)
        for each in figures:
            numbers = [f"{value:.6g}" for value in (each.round_trip_s, each.loss, each.setting, each.value)]
            writer.writerow([each.experiment, each.way, *numbers])


def read(directory: str) -> list[Figure]:
    """The figures of a file that `write` made."""
    with open(os.path.join(directory, DATA), encoding="ascii", newline="") as file:
        lines = list(csv.reader(file))[1:]
    return [Figure(experiment, way, *map(float, rest)) for experiment, way, *rest in lines]
