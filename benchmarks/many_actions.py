"""A Rakefile of 10,000 actions: how long it takes to parse, and what the live table costs.

python3 benchmarks/many_actions.py
"""

import os
import pty
import select
import subprocess
import sys
import tempfile
import time

import psutil
from farm import ENVIRONMENT, server

from rakefarm.client.rakefile import read_rakefile

ACTIONS = 10_000


def build_on_terminal(directory: str, address: str, progress: str) -> tuple[float, float]:
    """Run the build on a terminal of 80 columns; answers elapsed and CPU seconds of the client."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rakefarm.client", "--progress", progress, "--hosts", address],
        cwd=directory,
        env={**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    started, cpu = time.perf_counter(), 0.0
    while process.poll() is None:
        if select.select([ours], [], [], 0.05)[0]:
            try:
                os.read(ours, 65536)
            except OSError:
                break
        try:
            times = psutil.Process(process.pid).cpu_times()
            cpu = max(cpu, times.user + times.system)
        except psutil.Error:
            break
    process.wait()
    os.close(ours)
    return time.perf_counter() - started, cpu


def main() -> None:
    """Parse, then build with and without the table."""
    with tempfile.TemporaryDirectory() as directory, server() as running:
        path = os.path.join(directory, "Rakefile")
        with open(path, "w", encoding="ascii") as file:
            file.write("all:\n")
            for number in range(ACTIONS):
                file.write(f"\tremote-true {number}\n\t\trequires\n")
        started = time.perf_counter()
        rakefile = read_rakefile(path)
        print(
            f"{len(rakefile.sets[0].actions)} actions parse in {time.perf_counter() - started:.2f} s (target 1 s)",
            flush=True,
        )
        for progress in ("none", "live", "none", "live"):
            elapsed, cpu = build_on_terminal(directory, running.address, progress)
            print(
                f"built with --progress {progress}: {elapsed:.1f} s, client CPU {cpu:.2f} s,"
                f" {cpu / elapsed:.1%} of a core",
                flush=True,
            )


if __name__ == "__main__":
    main()
