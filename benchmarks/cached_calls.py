"""Rebuilds after `make clean` with every result cached: `rakefarm cc` held against ccache, and plain make.

    python3 benchmarks/cached_calls.py [ROUNDS]

The work is that of compiler_calls.py, and 60 C++ files with some 300 headers each. ccache has its defaults, and a
directory of its own on the same disk. Each round runs all ways in an order that is drawn anew; the medians of the
rounds' ratios to ccache count. Exit status 1 when an object of ours differs from plain make's.
"""

import contextlib
import glob
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator

from compiler_calls import MAKEFILE, Way, Work, build, compare, ours, works
from farm import server

CXX_FILES = 60
CXX_HEADERS = "#include <vector>\n#include <map>\n#include <iostream>\n#include <regex>\n"


@contextlib.contextmanager
def ccache(directory: str) -> Iterator[Way]:
    """Through ccache, with a cache of its own."""
    yield Way("ccache", "ccache gcc", {"CCACHE_DIR": os.path.join(directory, "ccache")}, lambda: 0.0)


def cxx_work(directory: str) -> Work:
    """Files with many headers and little in them."""
    place = os.path.join(directory, "cxx")
    os.mkdir(place)
    for number in range(CXX_FILES):
        with open(os.path.join(place, f"f{number}.cc"), "w", encoding="ascii") as file:
            file.write(f"{CXX_HEADERS}int f{number}(std::vector<int> v) {{ return v.at({number}); }}\n")
    with open(os.path.join(place, "bench.mk"), "w", encoding="ascii") as file:
        file.write(MAKEFILE.replace("%.c", "%.cc").replace("*.c", "*.cc"))
    return Work(f"{CXX_FILES} of C++, -j2", place, "-O1 -g", 2)


def main() -> int:
    """Answers the exit status."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    if shutil.which("ccache") is None:
        sys.exit("ccache is not installed")
    status = 0
    with tempfile.TemporaryDirectory(prefix="rf-") as directory, server("--slots", "2") as farm:
        plain = Way("plain", "gcc", {}, lambda: 0.0)
        with ours(directory, farm.address, "1G") as through_us, ccache(directory) as through_ccache:
            ways = [plain, through_us, through_ccache]
            for work in [*works(directory), cxx_work(directory)]:
                status |= compare(work, ways, directory)  # also fills both caches
                build(through_us, work)
                measure(work, [through_us, through_ccache], rounds)
    return status


def measure(work: Work, ways: list[Way], rounds: int) -> None:
    """Print medians, and those of the ratios to ccache."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    cpu: dict[str, list[float]] = {way.name: [] for way in ways}
    count = len(glob.glob(os.path.join(work.directory, "*.o")))
    for _ in range(rounds):
        for way in random.sample(ways, len(ways)):
            elapsed, used = build(way, work)
            times[way.name].append(elapsed)
            cpu[way.name].append(used)
    for way in ways:
        ratios = [one / other for one, other in zip(times[way.name], times["ccache"], strict=True)]
        print(
            f"  {way.name:9} {statistics.median(times[way.name]) / count * 1e3:7.2f} ms a file"
            f"  {statistics.median(ratios):5.2f} of ccache  {statistics.median(cpu[way.name]):6.2f} s of CPU",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
