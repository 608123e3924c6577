"""Quotes under load: while every slot compiles, and with a thousand idle connections.

python3 benchmarks/quotes.py
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from farm import ENVIRONMENT, server

from rakefarm.client.link import Link, connect, wait_readable
from rakefarm.hosts import parse_host
from rakefarm.wire.messages import Task

QUOTES, IDLE = 1000, 1000
TASK = Task("compile", (), 0, 0.0, 0)


def quote(link: Link) -> float:
    """Ask once; answers the seconds until the price was there."""
    started = time.perf_counter()
    link.ask(TASK)
    while link.take_answer(readable=True) is None:
        wait_readable([link], time.monotonic() + 5)
    return time.perf_counter() - started


def report(name: str, seconds: list[float]) -> None:
    """Print median and 99th percentile in milliseconds."""
    print(
        f"{name}: median {statistics.median(seconds) * 1e3:.2f} ms,"
        f" p99 {statistics.quantiles(seconds, n=100)[98] * 1e3:.2f} ms",
        flush=True,
    )


def main() -> None:
    """Run both measurements."""
    with tempfile.TemporaryDirectory() as directory, server() as running:
        with open(os.path.join(directory, "big.c"), "w", encoding="ascii") as file:
            for number in range(3000):
                file.write(f"double f{number}(double x) {{ return x * {number} + f{max(0, number - 1)}(x / 2); }}\n")
        with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
            file.write("busy:\n")
            for number in range(200):
                file.write(f"\tremote-cc -O2 -c big.c -o {number}.o\n\t\trequires big.c\n")
        host = parse_host(running.address)
        link = connect(host, os.environ, 5)
        report("quote, idle server", [quote(link) for _ in range(QUOTES)])
        build = subprocess.Popen(
            [sys.executable, "-m", "rakefarm.client", "--progress", "none", "--hosts", running.address],
            cwd=directory,
            env=ENVIRONMENT,
        )
        try:
            time.sleep(2)  # until every slot compiles
            report("quote, every slot compiles (target p99 20 ms)", [quote(link) for _ in range(QUOTES)])
            assert build.poll() is None, "the build ended before the measurement"
        finally:
            build.terminate()
            build.wait()
        before = running.memory()
        idle = [connect(host, os.environ, 5) for _ in range(IDLE)]
        report(f"quote, {IDLE} idle connections", [quote(link) for _ in range(QUOTES)])
        print(
            f"memory of the server: {before / 1e6:.0f} MB, with {IDLE} idle connections"
            f" {running.memory() / 1e6:.0f} MB (target 150 MB)"
        )
        for other in [*idle, link]:
            other.close()


if __name__ == "__main__":
    main()
