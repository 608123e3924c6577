"""What an engine costs an action: no-ops by BuildGrid onto one rakeserver, as a build sees them.

    python benchmarks/engine.py grpc://host:port [ACTIONS]

The engine runs, with a worker joined. p50 and p95 of an action's time, and of that less its command, one at a time;
then how long ACTIONS queued no-ops take together.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE_BY_ONE = 50


def build(url: str, count: int, jobs: int) -> tuple[float, list[dict[str, object]]]:
    """Seconds, and the ends of the actions."""
    with tempfile.TemporaryDirectory() as directory:
        text = "all:\n" + "".join([f"\tremote-true {number} {time.time_ns()}\n" for number in range(count)])
        (Path(directory) / "Rakefile").write_text(text)
        words = [sys.executable, "-m", "rakefarm.client", "--json", "--engine", url, "-j", str(jobs)]
        began = time.monotonic()
        done = subprocess.run(words, cwd=directory, capture_output=True, check=True)
        took = time.monotonic() - began
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return took, [event for event in events if event["event"] == "action_finished"]


def show(name: str, seconds: list[float]) -> None:
    """A line of the table, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=20)
    print(f"{name:40} p50 {statistics.median(seconds) * 1e3:8.1f} ms   p95 {cuts[18] * 1e3:8.1f} ms")


def main() -> int:
    """Answers the exit status."""
    url, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    _, ends = build(url, ONE_BY_ONE, 1)
    show("an action, one at a time", [float(str(end["elapsed_s"])) for end in ends])
    show("of these, beside its command", [float(str(end["elapsed_s"])) - float(str(end["ran_s"])) for end in ends])
    took, ends = build(url, count, 64)
    print(f"{count} queued no-ops: {took:.1f} s, {took / count * 1e3:.1f} ms each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
