"""What being safe costs a build: key, TLS and the level `namespaces`, against no key, plain text and the level `none`.

    python3 benchmarks/isolation_cost.py [ROUNDS]

The compilations of examples/tally, 28 small files of real C, several times over, through one server on loopback with as
many slots as this machine has cores. Both servers run all the time; each round builds on both, in turn, so that what
else the machine does hits both alike, and the median of the rounds' ratios is what counts. Processor time, of client,
server and commands together, is told as well: it says what the elapsed time can't where others use the machine.
Exit status 1: the ratio is above what it may be.
"""

import contextlib
import os
import resource
import shutil
import statistics
import sys
import tempfile

from farm import ENVIRONMENT, Server, client, server
from isolation import processor_seconds

from rakefarm.security.keys import add_key

SETS = 4
ROUNDS = 15
MOST = 1.05
TALLY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples", "tally")


def write_build(directory: str) -> int:
    """The example with the first set of its Rakefile several times over; answers how many actions there are."""
    shutil.copytree(TALLY, directory)
    path = os.path.join(directory, "Rakefile")
    with open(path, encoding="utf-8") as file:
        head, _, rest = file.read().partition("compile:\n")
    actions = rest.partition("\n\n")[0] + "\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + "".join(f"compile{number}:\n{actions}\n" for number in range(SETS)))
    return SETS * actions.count("remote-")


def measure(directory: str, running: Server, key_file: str) -> tuple[float, float]:
    """One build: elapsed and processor seconds."""
    used, served = resource.getrusage(resource.RUSAGE_CHILDREN), processor_seconds(running)
    elapsed = client(directory, "--hosts", running.address, "--key-file", key_file)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return elapsed, own + processor_seconds(running) - served


def main() -> int:
    """Answers the exit status."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    slots = str(len(os.sched_getaffinity(0)))
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        ENVIRONMENT["XDG_STATE_HOME"] = os.path.join(directory, "state")
        ENVIRONMENT["XDG_CACHE_HOME"] = os.path.join(directory, "cache")
        key_file = os.path.join(directory, "keys")
        add_key(key_file, "benchmark")
        project = os.path.join(directory, "project")
        count = write_build(project)
        farms = {
            "safe": (stack.enter_context(_serve(slots, "namespaces", key_file)), key_file),
            "open": (stack.enter_context(_serve(slots, "none", "none")), "none"),
        }
        for running, key in farms.values():
            measure(project, running, key)
        elapsed: dict[str, list[float]] = {name: [] for name in farms}
        processor: dict[str, list[float]] = {name: [] for name in farms}
        for number in range(rounds):
            for name in ("safe", "open") if number % 2 else ("open", "safe"):
                seconds, used = measure(project, *farms[name])
                elapsed[name].append(seconds)
                processor[name].append(used)
    ratio, processor_ratio = (
        statistics.median(safe / plain for safe, plain in zip(kind["safe"], kind["open"], strict=True))
        for kind in (elapsed, processor)
    )
    print(
        f"{count} compilations: safe {statistics.median(elapsed['safe']):.2f} s,"
        f" open {statistics.median(elapsed['open']):.2f} s, ratio {ratio:.3f} (at most {MOST:.2f}, {rounds} rounds);"
        f" processor time {statistics.median(processor['safe']):.2f} s and"
        f" {statistics.median(processor['open']):.2f} s, ratio {processor_ratio:.3f}"
    )
    return int(ratio > MOST)


def _serve(slots: str, isolation: str, key_file: str) -> contextlib.AbstractContextManager[Server]:
    return server("--slots", slots, "--isolation", isolation, "--key-file", key_file)


if __name__ == "__main__":
    sys.exit(main())
