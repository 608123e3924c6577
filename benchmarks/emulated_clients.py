"""Real clients of an emulated farm: their work, their Rakefiles, and a build by all of them that starts at one moment.

Each waits, connected, at a pipe in a first set of its own:

    client 0 ──► cat start ─┐                      ┌─► set 0, set 1
    client 1 ──► cat start ─┤ all there: let go at ├─► set 0, set 1
    …                       ┘ the same moment      └─► …
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from emulated_farm import BARE_ENVIRONMENT, EmulatedFarm, EmulatedHost
from market_measures import Interval, Record, Sets

SETS = 2
SPREAD = 1.0
SMALLEST, LARGEST = 0.1, 6.0
"""Work is lognormal with this spread, from a tenth to six times its median."""
START_S = 30.0


@dataclass(frozen=True)
class Victim:
    """The host that is killed, by its number, and the seconds after the start of the builds when it is."""

    number: int
    after_s: float


@dataclass(frozen=True)
class Run:
    """What happened: each client's events, when all started, when all had ended and a host was killed (monotonic
    seconds), what truly ran, and the share of this machine's cores that was busy."""

    clients: list[list[Record]]
    started_s: float
    ended_s: float
    killed: dict[str, float]
    worked: dict[tuple[str, str], list[Interval]]
    addresses: tuple[str, ...]
    busy: float


def draw_work(clients: int, actions: int, total: float, draw: random.Random) -> list[Sets]:
    """Seconds of work for every action of every set of every client, `total` in all."""

    def one() -> float:
        while not SMALLEST <= (work := draw.lognormvariate(0.0, SPREAD)) <= LARGEST:
            pass
        return work

    drawn = [[[one() for _ in range(actions)] for _ in range(SETS)] for _ in range(clients)]
    scale = total / sum(work for sets in drawn for works in sets for work in works)
    return [[[round(work * scale, 4) for work in works] for works in sets] for sets in drawn]


def write_client(directory: str, number: int, sets: Sets) -> None:
    """A client's directory: its Rakefile, and the pipe at which its first set waits."""
    os.makedirs(directory, exist_ok=True)
    os.mkfifo(os.path.join(directory, "start"))
    with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
        file.write("start:\n\tcat start\n")
        for index, works in enumerate(sets):
            file.write(f"set{index}:\n")
            for action, work in enumerate(works):
                file.write(
                    f"\tremote-work {work:.4f} client{number}set{index}action{action}\n\t\trequires\n\t\trepeatable\n"
                )


def start_client(directory: str, addresses: Sequence[str], policy: str) -> "subprocess.Popen[bytes]":
    """A client building the Rakefile of `directory`; its events go to `events` there, what it learns to `state`."""
    options = ["--hosts", ",".join(addresses), "--progress", "none", "--json=events"]
    options += [] if policy == "default" else ["--policy", policy]
    with open(os.path.join(directory, "said"), "wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "rakefarm.client", *options],
            cwd=directory,
            env={
                **BARE_ENVIRONMENT,
                "XDG_STATE_HOME": os.path.join(directory, "state"),
                "XDG_CONFIG_HOME": os.path.join(directory, "configuration"),
            },
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def start_together(directories: Sequence[str], clients: Sequence["subprocess.Popen[bytes]"]) -> float:
    """Let all clients go at once when all of them wait; answers when that was. Raises RuntimeError if one doesn't."""
    deadline = time.monotonic() + START_S
    with contextlib.ExitStack() as pipes:
        for directory, client in zip(directories, clients, strict=True):
            while True:
                try:  # refused until the client has opened its end
                    pipe = os.open(os.path.join(directory, "start"), os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError as error:
                    if client.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"a client did not start:\n{said_by(directory)}") from error
                    time.sleep(0.005)
            pipes.callback(os.close, pipe)
        return time.monotonic()


def said_by(directory: str) -> str:
    """The end of what a client said to its user."""
    with open(os.path.join(directory, "said"), encoding="utf-8", errors="replace") as file:
        return file.read()[-1000:]


def events_of(directory: str) -> list[Record]:
    """A client's events; a line that was cut off when it was ended is left out."""
    with open(os.path.join(directory, "events"), encoding="ascii") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def run_clients(
    farm: EmulatedFarm, directories: Sequence[str], policy: str, patience_s: float, victim: Victim | None
) -> Run:
    """Build in all directories at once. What takes more than `patience_s` seconds is ended."""
    killed: dict[str, float] = {}
    clients: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        assert victim is not None
        killed[farm.addresses[victim.number]] = time.monotonic()
        farm.kill(victim.number)

    timer = threading.Timer(victim.after_s, kill) if victim else None
    try:
        clients = [start_client(directory, farm.addresses, policy) for directory in directories]
        started_s = start_together(directories, clients)
        psutil.cpu_percent()
        if timer:
            timer.start()
        for client in clients:
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(max(0.0, started_s + patience_s - time.monotonic()))
        busy, ended_s = psutil.cpu_percent() / 100, time.monotonic()
    finally:
        if timer:
            timer.cancel()
        for client in clients:
            client.kill()
            client.wait()
    for directory, client in zip(directories, clients, strict=True):
        if client.returncode:
            print(f"{directory}: status {client.returncode}: {said_by(directory)}", file=sys.stderr)
    events = [events_of(directory) for directory in directories]
    return Run(events, started_s, ended_s, killed, farm.worked(), farm.addresses, busy)


def build(
    hosts: Sequence[EmulatedHost],
    work: Sequence[Sets],
    program: str,
    policy: str,
    patience_s: float,
    *,
    victim: Victim | None = None,
    learned: str = "",
    keep: str = "",
) -> Run:
    """One build by all clients on fresh servers. What the clients know is copied from the directory `learned` before,
    and to `keep` after it."""
    with tempfile.TemporaryDirectory(prefix="rakefarm-market-", dir=os.path.dirname(program)) as directory:
        os.chmod(directory, 0o711)
        directories = [os.path.join(directory, f"client{number}") for number in range(len(work))]
        for number, (each, sets) in enumerate(zip(directories, work, strict=True)):
            write_client(each, number, sets)
            if learned and os.path.isdir(state := os.path.join(learned, str(number))):
                shutil.copytree(state, os.path.join(each, "state"))
        with EmulatedFarm(hosts, program, directory) as farm:
            run = run_clients(farm, directories, policy, patience_s, victim)
        for number, each in enumerate(directories):
            if keep and os.path.isdir(state := os.path.join(each, "state")):
                shutil.copytree(state, os.path.join(keep, str(number)))
        return run
