"""When is it faster to compile on the farm than here? Measured, and fitted: see docs/report.md.

    python3 benchmarks/breakeven [--quick] [--rounds N] [--only FACTOR,…] [--data DIRECTORY]     (as root, on two cores)
    python3 benchmarks/breakeven --from-data [--data DIRECTORY]

The client has one processor, the hosts the other, each in a network namespace; between them a relay with a delay and a
rate. Every case is built here and on the farm in turn, in shuffled rounds. Rows go to DIRECTORY/break-even.csv; from
them come the coefficients, the figures and the report's numbers, so that --from-data makes these again.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from breakeven import table, wires
from breakeven.cases import sweep
from breakeven.report import write_report
from breakeven.rounds import bench
from cable.link import NoNetwork, link

REPORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "report")


def main() -> int:
    """Run the sweep, unless only what is made from its data is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer values of each factor; under ten minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each case (default: 3, quick: 2)")
    parser.add_argument(
        "--only", metavar="FACTOR,…", default="", help="measure these again, and keep the other rows of a full sweep"
    )
    parser.add_argument("--data", metavar="DIRECTORY", default=REPORT, help="where rows, figures and report are")
    parser.add_argument("--from-data", action="store_true", help="measure nothing: figures and report from the rows")
    options = parser.parse_args()
    if not options.from_data:
        try:
            only = [word for word in options.only.split(",") if word]
            measure(options.data, options.quick, options.rounds or (2 if options.quick else 3), only)
        except NoNetwork as error:
            print(f"breakeven: {error}", file=sys.stderr)
            return 1
    write_report(options.data)
    return 0


def measure(directory: str, quick: bool, rounds: int, only: Sequence[str]) -> None:
    """All cases, or those of the factors in `only`, in shuffled rounds; rows are written as they come, so that an
    interrupted sweep is not lost."""
    cases = [(index, case) for index, case in enumerate(sweep(quick)) if not only or case.factor in only]
    again = {index for index, _ in cases}
    kept = [row for row in table.read(directory) if row.number not in again] if only else []
    rows: list[table.Row] = []
    os.makedirs(directory, exist_ok=True)
    started = time.monotonic()
    if not only:
        with link() as wire:
            wires.write(directory, wires.measure(wire, quick))
        print(f"the cable itself: {time.monotonic() - started:.0f} s", flush=True)
    with link() as wire, bench(wire, max(case.hosts for _, case in cases)) as running:
        for number in range(rounds):
            for index, case in random.Random(number).sample(cases, len(cases)):
                rows.append(table.row_of(running.run(case, index, number)))
                row = rows[-1]
                print(
                    f"{len(rows)}/{rounds * len(cases)} {row.factor}: {row.actions} x {row.source}"
                    f" of {row.work_s:.3f} s,"
                    f" share {row.share:g}, {row.round_trip_s * 1e3:.2f} ms, {row.rate_bps / 1e6:.0f} Mbit/s,"
                    f" {row.input_bytes:.0f} bytes, load {row.load}, hosts {row.hosts}:"
                    f" here {row.local_s:.2f} s, farm {row.remote_s:.2f} s",
                    flush=True,
                )
            table.write(directory, [*kept, *rows])
    print(f"{len(rows)} rows in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
