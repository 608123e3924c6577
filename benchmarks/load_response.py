"""Does the price follow the load, and is the rate that it promises the rate that a command gets?

    python3 benchmarks/load_response.py

Real load, real psutil: spinning processes of somebody else on this machine, and commands of the farm. First, how soon
after they start and after they end the busy cores in the curve and the price have moved, and whether by what the
formula says. Then, for k commands of the farm beside b spinning processes, the work that each gets done in a second against
rate(k) = min(1, cores / (k + b)), as a share of what one gets alone.
"""

import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from farm import ENVIRONMENT, server

from rakefarm.client.link import Link, connect, wait_readable
from rakefarm.hosts import parse_host
from rakefarm.market.curve import rate
from rakefarm.wire.messages import Offer, Task

TASK = Task("compile", (), 0, 1.0, 0)
COUNTING_S = 2.0
COUNT = f"""
import time
n, end = 0, time.monotonic() + {COUNTING_S}
while time.monotonic() < end:
    for _ in range(1000):
        n += 1
print(n)
"""


def spin() -> None:
    """Keep one core busy for ever, in a session of its own: the scheduler shares first among sessions (autogroups)."""
    os.setsid()
    while True:
        pass


@contextlib.contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many busy processes that are not the farm's."""
    processes = [multiprocessing.Process(target=spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def ask(link: Link) -> Offer:
    """A quote."""
    link.ask(TASK)
    while (answer := link.take_answer(readable=True)) is None:
        wait_readable([link], time.monotonic() + 5)
    assert isinstance(answer, Offer), answer
    return answer


def seconds_until(link: Link, low: float, high: float) -> tuple[float, Offer]:
    """How long until the curve's busy cores of others lie between the two, five seconds at the most; the last quote."""
    started = time.monotonic()
    while True:
        offer = ask(link)
        if low <= offer.curve.busy <= high or time.monotonic() - started > 5:
            return time.monotonic() - started, offer
        time.sleep(0.01)


def respond(link: Link, cores: int) -> None:
    """Print how the price follows spinning processes that come and go."""
    time.sleep(1)
    before = ask(link)
    for count in range(1, cores + 1):
        with spinning(count):
            rise_s, during = seconds_until(link, 0.75 * count, cores)
            expected = 1.0 / rate(during.curve.speed, during.curve.cores, during.curve.busy, during.curve.running + 1)
            run = {term.name: term.value for term in during.terms}["run"]
            time.sleep(1)
        fall_s, after = seconds_until(link, 0.0, 0.25)
        print(
            f"{count} spinning: price {before.price:.2f} -> {during.price:.2f} within {rise_s:.2f} s (busy"
            f" {during.curve.busy:.2f}; run term {run:.3f}, formula {expected:.3f}), back to {after.price:.2f} within"
            f" {fall_s:.2f} s",
            flush=True,
        )


def counted(directory: str, address: str, commands: int) -> float:
    """The median count of so many commands at one time."""
    with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
        file.write(
            "count:\n" + "".join(f"\tremote-python3 count.py {n}\n\t\trequires count.py\n" for n in range(commands))
        )
    done = subprocess.run(
        [sys.executable, "-m", "rakefarm.client", "--progress", "none", "--hosts", address],
        cwd=directory,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
    )
    return statistics.median(int(line) for line in done.stdout.split())


def main() -> None:
    """Both measurements."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory, server("--slots", "6", "--workers", "4") as running:
        link = connect(parse_host(running.address), os.environ, 5)
        respond(link, cores)
        link.close()
        with open(os.path.join(directory, "count.py"), "w", encoding="ascii") as file:
            file.write(COUNT)
        alone = counted(directory, running.address, 1)
        for others in range(5):
            shares = []
            with spinning(others):
                for own in range(1, 7):
                    got, said = counted(directory, running.address, own) / alone, rate(1.0, cores, others, own)
                    shares.append(f"k={own} {got:.2f}/{said:.2f}")
            print(f"b={others}: got/rate(k): {', '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
