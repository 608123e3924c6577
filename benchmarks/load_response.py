"""Does the price follow the load, and is the rate that it promises the rate that a command gets?

    python3 benchmarks/load_response.py [--repeats N]

Real load, real psutil: spinning processes of somebody else on this machine, and commands of the farm. First, how soon
after they start and after they end the busy cores in the curve and the price have moved, and whether by what the
formula says. Then, for k commands of the farm beside b spinning processes, the share of a core that each command gets
(its processor time over the time that passed) against rate(k) of the curves that the server gave meanwhile.

Other programs on this machine are load like any other, to the server as to the commands, so they spoil nothing as long
as they are steady. How much of it there is, is told first; what was measured while it changed is marked, measured
again, and not counted.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from farm import ENVIRONMENT, server

from rakefarm.client.link import Link, connect, wait_readable
from rakefarm.hosts import parse_host
from rakefarm.market.curve import rate
from rakefarm.wire.messages import Offer, Task

TASK = Task("compile", (), 0, 1.0, 0)
SPINNING_S = 2.0
SHARE = f"""
import time
began, used = time.monotonic(), time.process_time()
while time.monotonic() - began < {SPINNING_S}:
    pass
print((time.process_time() - used) / (time.monotonic() - began))
"""
TOLERANCE = 0.1
STEADY = 0.25
"""The spread of the busy cores during a measurement, as a share of all who compete, up to which they were steady."""


@dataclass(frozen=True)
class Cell:
    """What k commands got beside b spinning processes: the share of a core, what the curves promised, and whether the
    load was steady meanwhile."""

    got: float
    promised: float
    busy: float
    steady: bool

    @property
    def error(self) -> float:
        """How far the promise was off, as a share of what was got."""
        return self.promised / self.got - 1.0


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
            rise_s, during = seconds_until(link, 0.75 * count, math.inf)
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


def measure(directory: str, address: str, link: Link, commands: int) -> Cell:
    """So many commands at one time, and what the server says while all of them run."""
    with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
        lines = [f"\tremote-python3 share.py {number}\n\t\trequires share.py\n" for number in range(commands)]
        file.write("share:\n" + "".join(lines))
    arguments = [sys.executable, "-m", "rakefarm.client", "--progress", "none", "--hosts", address]
    client = subprocess.Popen(arguments, cwd=directory, env=ENVIRONMENT, stdout=subprocess.PIPE)
    curves = []
    while client.poll() is None:
        curve = ask(link).curve
        if curve.running == commands:
            curves.append(curve)
        time.sleep(0.05)
    assert client.stdout is not None and client.returncode == 0
    shares = [float(line) for line in client.stdout.read().split()]
    client.stdout.close()
    curves = curves[len(curves) // 4 :]  # the interpreters have started by then
    busy = [curve.busy for curve in curves]
    promised = statistics.mean(rate(1.0, curve.cores, curve.busy, commands) for curve in curves)
    spread = statistics.pstdev(busy) / (commands + statistics.mean(busy))
    return Cell(statistics.mean(shares), promised, statistics.mean(busy), spread <= STEADY)


def tabulate(directory: str, address: str, link: Link, repeats: int) -> list[Cell]:
    """Print what was got and promised for every k and b; answers the steady ones."""
    cells = []
    for others in range(5):
        shown = []
        for own in range(1, 7):
            with spinning(others):
                for _ in range(repeats):
                    cell = measure(directory, address, link, own)
                    if cell.steady:
                        cells.append(cell)
                        break
            shown.append(f"k={own} {cell.got:.2f}/{cell.promised:.2f}{'' if cell.steady else '?'}")
        print(f"b={others}: got/promised: {', '.join(shown)}", flush=True)
    return cells


def main() -> None:
    """Both measurements."""
    parser = argparse.ArgumentParser(description="Hold prices and rates against real load.")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="tries at a steady measurement (default: 3)"
    )
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory, server("--slots", "6", "--workers", "4") as running:
        link = connect(parse_host(running.address), os.environ, 5)
        time.sleep(2)
        foreign = ask(link).curve
        print(
            f"other programs: {foreign.busy:.2f} on {cores} cores, load average {foreign.load_average:.1f}", flush=True
        )
        if foreign.busy < 0.25:
            respond(link, cores)
        else:
            print("too many to see how fast the price follows: that needs a quiet machine", flush=True)
        with open(os.path.join(directory, "share.py"), "w", encoding="ascii") as file:
            file.write(SHARE)
        cells = tabulate(directory, running.address, link, options.repeats)
        link.close()
    if not cells:
        print("nothing was steady: too much else changes on this machine")
        sys.exit(1)
    errors = [abs(cell.error) for cell in cells]
    within = sum(error <= TOLERANCE for error in errors)
    bias = statistics.median(cell.error for cell in cells)
    print(
        f"{len(cells)} of 30 steady: {within} within {TOLERANCE:.0%},"
        f" median error {statistics.median(errors):.0%}, bias {bias:+.0%}"
    )


if __name__ == "__main__":
    main()
