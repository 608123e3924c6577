"""What the benchmarks share: a server of our own on loopback, a client to run, and paired rounds.

Times on a shared machine mean little, ratios hold better: each round runs us and the peer one after the other, the
order turned round every time, and the median of the rounds' ratios is what counts.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)  # with it each start compiles our modules again, which no user has


@dataclass(frozen=True)
class Server:
    """A running server: its address, and its listener's process id."""

    address: str
    pid: int

    def processes(self) -> list[psutil.Process]:
        """The listener and everything below it."""
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def memory(self) -> int:
        """Proportional set size of all its processes in bytes: shared pages are counted once."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total


@contextlib.contextmanager
def server(*options: str, cache: str | None = None) -> Iterator[Server]:
    """A server on a port that the system picks, gone when the context ends."""
    own = tempfile.mkdtemp(prefix="rakefarm-bench-")
    environment = {**ENVIRONMENT, "XDG_CACHE_HOME": cache or own}
    process = subprocess.Popen(
        [sys.executable, "-m", "rakefarm.server", "--until-eof", "--port", "0", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdin and process.stdout
    try:
        yield Server(process.stdout.readline().split()[2], process.pid)
    finally:
        process.stdin.close()
        process.wait()
        shutil.rmtree(own, ignore_errors=True)


def client(directory: str, *options: str) -> float:
    """Run the client in `directory`; answers the seconds it took. Raises CalledProcessError when the build fails."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "rakefarm.client", "--progress", "none", *options],
        cwd=directory,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def timed(command: str, directory: str) -> float:
    """Run a shell command; answers the seconds it took."""
    started = time.perf_counter()
    subprocess.run(["/bin/sh", "-c", command], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def paired(name: str, rounds: int, ours: Callable[[], float], peer: Callable[[], float], target: float) -> float:
    """Run both in turn, after one warm-up each; print each median and the median ratio (above 1: we are faster)."""
    ours()
    peer()
    ours_s, peer_s = [], []
    for number in range(rounds):
        for run, seconds in ((ours, ours_s), (peer, peer_s)) if number % 2 else ((peer, peer_s), (ours, ours_s)):
            seconds.append(run())
    ratio = statistics.median(p / o for o, p in zip(ours_s, peer_s, strict=True))
    print(
        f"{name}: rakefarm {statistics.median(ours_s):.2f} s, peer {statistics.median(peer_s):.2f} s,"
        f" ratio {ratio:.2f} (target {target:.2f}, {rounds} rounds)",
        flush=True,
    )
    return ratio
