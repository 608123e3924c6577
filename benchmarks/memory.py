"""Whether a server's memory stays as it is over 10,000 actions.

    python3 benchmarks/memory.py [ACTIONS]

With a key, TLS and the highest isolation that holds here; actions with an input, an output and something printed, which
are all different. What all its processes hold (proportional set size) after the first tenth, when everything has been
used once, is compared with what they hold at the end. Exit status 1: it has grown by more than it may.
"""

import os
import sys
import tempfile

from farm import ENVIRONMENT, client, server

from rakefarm.security.keys import add_key

ACTIONS = 10_000
PARTS = 10
MOST_GROWTH = 0.10


def main() -> int:
    """Answers the exit status."""
    actions = int(sys.argv[1]) if len(sys.argv) > 1 else ACTIONS
    part = actions // PARTS
    held = []
    with tempfile.TemporaryDirectory() as directory:
        key_file = os.path.join(directory, "keys")
        add_key(key_file, "benchmark")
        ENVIRONMENT["XDG_STATE_HOME"] = directory
        with server("--key-file", key_file) as running:
            for number in range(PARTS):
                project = tempfile.mkdtemp(dir=directory)
                with open(os.path.join(project, "in"), "w", encoding="ascii") as file:
                    file.write(str(number) * 4096)
                with open(os.path.join(project, "Rakefile"), "w", encoding="ascii") as file:
                    file.write("all:\n")
                    for action in range(part):
                        name = f"out{number}-{action}"
                        file.write(f"\tremote-cat in > {name}; echo {name} >> {name}; echo {name}\n")
                        file.write("\t\trequires in\n")
                client(project, "--hosts", running.address, "--key-file", key_file)
                held.append(running.memory())
                print(f"after {(number + 1) * part} actions: {held[-1] / (1 << 20):.1f} MiB", flush=True)
    growth = held[-1] / held[0] - 1
    print(f"{growth:+.1%} from {part} actions to {part * PARTS} (at most {MOST_GROWTH:+.0%})")
    return int(growth > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
