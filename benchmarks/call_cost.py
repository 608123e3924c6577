"""What a compile through `rakefarm cc` costs beside the compiling: processor time a call, by process.

    python3 benchmarks/call_cost.py [CALLS [ROUNDS]]

CALLS empty files (default: 200) are compiled with `make -j2`, here and on a server of two slots on loopback, ROUNDS
times each in turn (default: 3), after one build each way that warms everything. Processor time is what the kernel
accounts each process (proc(5), stat), so it depends little on what else the machine does. "commands" is the compiler,
and what started it, there; "make and calls" is the compiler here, for plain make.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

import psutil
from farm import ENVIRONMENT, Server, server
from peers.ways import PLAIN, Way, rakefarm
from peers.works import COMPILES, Work, empty

COLUMNS = ("make and calls", "helper", "listener", "workers", "executors", "commands")


def server_times(farm: Server) -> dict[str, float]:
    """Seconds of the server's processes so far."""
    used = dict.fromkeys(COLUMNS, 0.0)
    depths = {farm.pid: 0}
    for process in farm.processes():  # parents before their children
        depth = depths.setdefault(process.pid, depths.get(process.ppid(), 0) + 1)
        times = process.cpu_times()
        used[("listener", "workers", "executors")[min(depth, 2)]] += times.user + times.system
        if depth > 2:
            used["commands"] += times.children_user + times.children_system
    return used


def build(way: Way, work: Work, farm: Server) -> tuple[float, Mapping[str, float]]:
    """Build from nothing: seconds, and processor seconds by process."""
    work.clean()
    helpers = [psutil.Process(pid) for pid in way.daemons()]
    before, before_helper = server_times(farm), _seconds(helpers)
    words = ["make", "-s", "-f", COMPILES, "-j2", f"LAUNCHER={way.launcher}"]
    began = time.perf_counter()
    make = subprocess.Popen(words, cwd=work.directory, env={**ENVIRONMENT, **way.environment})
    _, status, usage = os.wait4(make.pid, 0)
    elapsed = time.perf_counter() - began
    make.returncode = os.waitstatus_to_exitcode(status)
    if make.returncode:
        raise subprocess.CalledProcessError(make.returncode, words)
    time.sleep(0.1)  # what a server does when it has answered
    used = {name: value - before[name] for name, value in server_times(farm).items()}
    used["make and calls"] = usage.ru_utime + usage.ru_stime
    used["helper"] = _seconds(helpers) - before_helper
    return elapsed, used


def _seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def main() -> None:
    """Print both tables."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory(prefix="rf-") as directory, server("--slots", "2") as farm:
        work = empty(directory, calls)
        with rakefarm(directory, [farm.address]) as through:
            made: dict[str, list[tuple[float, Mapping[str, float]]]] = {PLAIN.name: [], through.name: []}
            for number in range(rounds + 1):
                for way in (PLAIN, through):
                    built = build(way, work, farm)
                    if number:
                        made[way.name].append(built)
            print(f"{calls} empty compiles, -j2; {through.strays()} of them ran here that should not have;"
                  f" load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
    ratio = statistics.median(
        ours[0] / local[0] for ours, local in zip(made[through.name], made[PLAIN.name], strict=True)
    )
    print(f"{'ms of a processor a call':26}{PLAIN.name:>10}{through.name:>10}")
    totals = dict.fromkeys(made, 0.0)
    for column in COLUMNS:
        line = f"  {column:24}"
        for name, builds in made.items():
            value = statistics.median(used[column] for _, used in builds) / calls * 1e3
            totals[name] += value
            line += f"{value:10.2f}"
        print(line)
    print(f"  {'all':24}" + "".join(f"{total:10.2f}" for total in totals.values()))
    elapsed = {name: statistics.median(seconds for seconds, _ in builds) for name, builds in made.items()}
    print(f"  {'elapsed a call':24}" + "".join(f"{seconds / calls * 1e3:10.2f}" for seconds in elapsed.values()))
    print(f"time over local: {ratio:.2f}, processor time over local: {totals[through.name] / totals[PLAIN.name]:.2f}")


if __name__ == "__main__":
    main()
