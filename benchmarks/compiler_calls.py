"""Builds by make through `rakefarm cc`, held against plain make and against distcc: time, the client's CPU, objects.

    python3 benchmarks/compiler_calls.py [ROUNDS]

Measured: all of Lua (34 files of the source distribution of the package `lupa`, fetched with pip) and 200 empty
compiles, each with `make -j2`, and 20 empty ones after another; one server on loopback with two slots, the store warm.
Each round runs all of them in an order that is drawn anew, and the medians of the rounds' ratios to plain make count.
CPU is user and system time of what runs on the client's side: the calls, make, and our helper; for plain make that is
the compiling itself. distcc takes part where it is installed; it is kept from falling back to compiling here.
"""

import contextlib
import filecmp
import glob
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psutil
from farm import ENVIRONMENT, server
from identical import fetch

EMPTY = 200
ONE_BY_ONE = 20
MAKEFILE = """
all: $(patsubst %.c,%.o,$(wildcard *.c))
%.o: %.c
\t$(CC) $(CFLAGS) -c $< -o $@
"""


@dataclass(frozen=True)
class Way:
    """One way to have a compiler called: what CC is, with these variables; `helper` finds a process to count, too."""

    name: str
    compiler: str
    environment: Mapping[str, str]
    helper: Callable[[], float]


@dataclass(frozen=True)
class Work:
    """What is built, with which flags, and how many at a time."""

    name: str
    directory: str
    flags: str
    jobs: int


def build(way: Way, work: Work) -> tuple[float, float]:
    """Build from nothing; answers seconds and the client's CPU seconds."""
    for path in glob.glob(os.path.join(work.directory, "*.o")):
        os.unlink(path)
    helped = way.helper()  # it starts a process, which is not to be counted
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        ["make", "-s", "-f", "bench.mk", f"-j{work.jobs}", f"CC={way.compiler}", f"CFLAGS={work.flags}"],
        cwd=work.directory,
        env={**ENVIRONMENT, **way.environment},
        check=True,
    )
    elapsed, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return elapsed, cpu + way.helper() - helped


def works(directory: str) -> list[Work]:
    """The directories of all work, made."""
    lua = os.path.join(directory, "lua")
    shutil.copytree(fetch(directory), lua)
    for name in ("onelua.c", "ltests.c", "luac.c"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(lua, name))
    made = [Work("Lua, -j2", lua, "-O2 -std=gnu99 -DLUA_USE_LINUX", 2)]
    for name, count, jobs in ((f"{EMPTY} empty, -j2", EMPTY, 2), (f"{ONE_BY_ONE} empty, one by one", ONE_BY_ONE, 1)):
        place = os.path.join(directory, f"empty-{count}")
        os.mkdir(place)
        for number in range(count):
            with open(os.path.join(place, f"f{number}.c"), "w", encoding="ascii") as file:
                file.write(f"int f{number};\n")
        made.append(Work(name, place, "-O2", jobs))
    for work in made:
        with open(os.path.join(work.directory, "bench.mk"), "w", encoding="ascii") as file:
            file.write(MAKEFILE)
    return made


@contextlib.contextmanager
def ours(directory: str, address: str, result_cache_size: str = "0") -> Iterator[Way]:
    """Through `rakefarm cc`, with a helper of its own."""
    environment = {
        "RAKEFARM_HOSTS": address,
        "RAKEFARM_RESULT_CACHE_SIZE": result_cache_size,
        "RAKEFARM_CC_DIRECTORY": os.path.join(directory, "run"),
        "XDG_CACHE_HOME": os.path.join(directory, "cache"),
        "XDG_STATE_HOME": os.path.join(directory, "state"),
    }
    variables = {**ENVIRONMENT, **environment}

    def command(*options: str) -> str:
        words = [sys.executable, "-m", "rakefarm.cc", *options]
        return subprocess.run(words, env=variables, capture_output=True, text=True).stdout

    def helper_cpu() -> float:
        told = command("--statistics")
        if not told:  # there is none before the first call
            return 0.0
        pid = int(told.split("process ")[1].split()[0])
        used = psutil.Process(pid).cpu_times()
        return used.user + used.system

    launcher = command("--launcher").strip()
    try:
        yield Way("rakefarm", f"{launcher} gcc", environment, helper_cpu)
    finally:
        print(command("--statistics"), end="")
        command("--stop")


@contextlib.contextmanager
def distcc(directory: str) -> Iterator[Way | None]:
    """Through distcc, with a daemon of our own; None where it is not installed."""
    if shutil.which("distccd") is None:
        yield None
        return
    os.mkdir(os.path.join(directory, "distcc"))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    daemon = subprocess.Popen(
        ["distccd", "--no-detach", "--daemon", "--allow", "127.0.0.1", "--port", str(port), "--jobs", "2",
         "--log-stderr", "--enable-tcp-insecure"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    environment = {
        "DISTCC_HOSTS": f"127.0.0.1:{port}/2",
        "DISTCC_FALLBACK": "0",
        "DISTCC_DIR": os.path.join(directory, "distcc"),
    }
    try:
        yield Way("distcc", "distcc gcc", environment, lambda: 0.0)
    finally:
        daemon.terminate()
        daemon.wait()


def main() -> int:
    """Exit status 1 when an object differs from plain make's."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    status = 0
    with tempfile.TemporaryDirectory(prefix="rf-") as directory, server("--slots", "2") as farm:
        here = Way("plain", "gcc", {}, lambda: 0.0)
        with ours(directory, farm.address) as through_us, distcc(directory) as through_distcc:
            ways = [here, through_us, *([through_distcc] if through_distcc else [])]
            for work in works(directory):
                status |= compare(work, ways, directory)
                measure(work, ways, rounds)
    return status


def compare(work: Work, ways: list[Way], directory: str) -> int:
    """Build once each way, which also warms every store; 1 when our objects are not plain make's."""
    kept = os.path.join(directory, "kept")
    shutil.rmtree(kept, ignore_errors=True)
    os.mkdir(kept)
    build(ways[0], work)
    names = [os.path.basename(path) for path in glob.glob(os.path.join(work.directory, "*.o"))]
    for name in names:
        shutil.copy(os.path.join(work.directory, name), kept)
    for way in ways[2:]:
        build(way, work)
    build(ways[1], work)
    _, different, missing = filecmp.cmpfiles(kept, work.directory, names, shallow=False)
    print(f"{work.name}: {len(names)} objects, {len(different) + len(missing)} differ", flush=True)
    return int(bool(different or missing))


def measure(work: Work, ways: list[Way], rounds: int) -> None:
    """Print the medians of times, of CPU, and of the ratios of times to plain make."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    cpu: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in random.sample(ways, len(ways)):
            elapsed, used = build(way, work)
            times[way.name].append(elapsed)
            cpu[way.name].append(used)
    for way in ways:
        ratios = [one / plain for one, plain in zip(times[way.name], times["plain"], strict=True)]
        print(
            f"  {way.name:9} {statistics.median(times[way.name]):7.2f} s  {statistics.median(ratios):5.2f} of plain"
            f"  {statistics.median(cpu[way.name]):6.2f} s of the client's CPU",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
