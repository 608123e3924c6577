"""Small actions against xargs: how much of the machine does the farm leave to the commands?

    python3 benchmarks/throughput.py [ROUNDS]

200 compiles of an empty file, and 2,000 actions that do nothing, through one server on loopback with as many slots as
this machine has cores, against `xargs -P` with the same number. The client's own start is part of the time.
"""

import os
import sys
import tempfile

from farm import client, paired, server, timed

COMPILES, NOOPS = 200, 2000


def main() -> None:
    """Run both comparisons."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory, server("--slots", str(cores)) as running:
        with open(os.path.join(directory, "empty.c"), "w", encoding="ascii"):
            pass
        with open(os.path.join(directory, "Compiles"), "w", encoding="ascii") as file:
            file.write("compile:\n")
            for number in range(COMPILES):
                file.write(f"\tremote-cc -c empty.c -o {number}.o\n\t\trequires empty.c\n")
        with open(os.path.join(directory, "Noops"), "w", encoding="ascii") as file:
            file.write("nothing:\n" + "\tremote-true\n" * NOOPS)
        paired(
            f"{COMPILES} compiles of an empty file",
            rounds,
            lambda: client(directory, "--hosts", running.address, "Compiles"),
            lambda: timed(f"seq {COMPILES} | xargs -P{cores} -I@ cc -c empty.c -o @.o", directory),
            0.90,
        )
        paired(
            f"{NOOPS} actions that do nothing",
            rounds,
            lambda: client(directory, "--hosts", running.address, "Noops"),
            lambda: timed(f"seq {NOOPS} | xargs -P{cores} -n1 true", directory),
            1.00,
        )


if __name__ == "__main__":
    main()
