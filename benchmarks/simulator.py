"""How fast the simulator and the planning in it are, and whether its memory stays as it is.

    python3 benchmarks/simulator.py [--parts events,planning,memory,experiment] [--seeds N] [--runs N] [--jobs N]

    events      simulated events in a second of processor time, of base runs of N seeds with the default policy
    planning    milliseconds that the default policy takes for an award, with 64 hosts and 320 actions, and for its
                slowest event
    memory      what this process holds after each tenth of `--runs` runs, every one a new seed: growth after the first
    experiment  minutes that base with 30 seeds and 8 policies takes, by `rakefarm experiment run`'s own means

Exit status 1: a target is missed.
"""

import argparse
import os
import sys
import tempfile
import time

import psutil
from msgspec import structs

from rakefarm.lab.draw import draw
from rakefarm.lab.experiment import open_directory, run_all
from rakefarm.lab.plan_file import read_plan
from rakefarm.lab.scenario import STANDARD, Scenario
from rakefarm.lab.world import Outcome, simulate
from rakefarm.market.bids import BIDS, DEFAULT
from rakefarm.market.policies import DEFAULT as POLICY
from rakefarm.market.policies import POLICIES

MOST_PLANNING_S = 1e-3
MOST_GROWTH = 0.10
MOST_EXPERIMENT_S = 600.0
EXPERIMENT_SEEDS = 30
COMPARED = ("plan", "plan-no-backups", "sparrow", "two-choices", "random", "cpu", "in-flight", "lowest-burst")
PARTS = 10


def run(scenario: Scenario, seed: int) -> Outcome:
    """One simulated run with the default policy."""
    return simulate(draw(scenario, seed), POLICY, POLICIES[POLICY], BIDS[DEFAULT], time.process_time)


def events(options: argparse.Namespace) -> bool:
    """Answers whether there was any."""
    began, done = time.process_time(), 0
    for seed in range(1, options.seeds + 1):
        done += run(STANDARD["base"], seed).events
    took_s = time.process_time() - began
    print(f"events: {done / took_s:,.0f} a second, {took_s / options.seeds:.2f} s a base run")
    return done > 0


def planning(options: argparse.Namespace) -> bool:
    """Answers whether an award takes no longer than it may."""
    work = structs.replace(STANDARD["base"].workload, clients=1, sets=1, actions=320)
    scenario = structs.replace(STANDARD["64-hosts"], workload=work)
    outcomes = [run(scenario, seed) for seed in range(1, options.seeds + 1)]
    award_s = sum(each.planning_s for each in outcomes) / sum(len(each.attempts) for each in outcomes)
    slowest_s = max(each.slowest_s for each in outcomes)
    print(
        f"planning: {award_s * 1e3:.3f} ms an award (at most {MOST_PLANNING_S * 1e3:g}) with 64 hosts and 320 actions,"
        f" slowest event {slowest_s * 1e3:.1f} ms"
    )
    return award_s <= MOST_PLANNING_S


def memory(options: argparse.Namespace) -> bool:
    """Answers whether it stays as it is."""
    process, held = psutil.Process(), []
    part = max(1, options.runs // PARTS)
    for number in range(PARTS):
        for seed in range(number * part, (number + 1) * part):
            run(STANDARD["light"], seed)
        held.append(process.memory_info().rss)
    growth = held[-1] / held[0] - 1
    print(
        f"memory: {held[0] / (1 << 20):.1f} MiB after {part} runs, {held[-1] / (1 << 20):.1f} MiB after {PARTS * part}:"
        f" {growth:+.1%} (at most {MOST_GROWTH:+.0%})"
    )
    return growth <= MOST_GROWTH


def experiment(options: argparse.Namespace) -> bool:
    """Answers whether it takes no longer than it may."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "plan.toml")
        with open(path, "w", encoding="ascii") as file:
            names = ", ".join(f'"{name}"' for name in COMPARED)
            file.write(f'seeds = {EXPERIMENT_SEEDS}\npolicies = [{names}]\n[scenario]\nlike = "base"\n')
        plan, out = read_plan(path), os.path.join(directory, "out")
        open_directory(out, plan, ("sim",))
        began = time.monotonic()
        run_all(plan.runs(("sim",)), out, options.jobs, lambda done, of: None)
        took_s = time.monotonic() - began
    print(
        f"experiment: {took_s / 60:.1f} min for base, {EXPERIMENT_SEEDS} seeds × {len(COMPARED)} policies on"
        f" {options.jobs} cores (at most {MOST_EXPERIMENT_S / 60:g})"
    )
    return took_s <= MOST_EXPERIMENT_S


def main() -> int:
    """Answers the exit status."""
    known = {"events": events, "planning": planning, "memory": memory, "experiment": experiment}
    parser = argparse.ArgumentParser(description="Measure the simulator.")
    parser.add_argument("--parts", default=",".join(known), metavar="LIST", help="what to measure (default: all)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="worlds for speeds (default: 10)")
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="runs for memory (default: 200)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes for the experiment (default: 2)")
    options = parser.parse_args()
    names = options.parts.split(",")
    if unknown := set(names) - set(known):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    reached = [known[name](options) for name in names]
    return int(not all(reached))


if __name__ == "__main__":
    sys.exit(main())
