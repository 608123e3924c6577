"""Small actions against xargs: how much of the machine does the farm leave to the commands?

    python3 benchmarks/throughput.py [ROUNDS]

200 compiles of an empty file, and 2,000 actions that do nothing, through one server on loopback with as many slots as
this machine has cores, against `xargs -P` with the same number; and once more with twice as many. The client's own
start is part of the time.
"""

import os
import sys
import tempfile

from farm import client, paired, server, timed

COMPILES, NOOPS = 200, 2000


def main() -> None:
    """Run both comparisons, with a slot a core, for which the targets are, and with two."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "empty.c"), "w", encoding="ascii"):
            pass
        with open(os.path.join(directory, "Compiles"), "w", encoding="ascii") as file:
            file.write("compile:\n")
            for number in range(COMPILES):
                file.write(f"\tremote-cc -c empty.c -o {number}.o\n\t\trequires empty.c\n")
        with open(os.path.join(directory, "Noops"), "w", encoding="ascii") as file:
            file.write("nothing:\n" + "\tremote-true\n" * NOOPS)
        for slots in (cores, 2 * cores):
            compare(directory, slots, rounds)


def compare(directory: str, slots: int, rounds: int) -> None:
    """Both comparisons, with so many commands at one time."""
    with server("--slots", str(slots)) as running:
        paired(
            f"{COMPILES} compiles of an empty file, {slots} at once",
            rounds,
            lambda: client(directory, "--hosts", running.address, "Compiles"),
            lambda: timed(f"seq {COMPILES} | xargs -P{slots} -I@ cc -c empty.c -o @.o", directory),
            0.90,
        )
        paired(
            f"{NOOPS} actions that do nothing, {slots} at once",
            rounds,
            lambda: client(directory, "--hosts", running.address, "Noops"),
            lambda: timed(f"seq {NOOPS} | xargs -P{slots} -n1 true", directory),
            1.00,
        )


if __name__ == "__main__":
    main()
