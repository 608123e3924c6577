"""The market on a real farm: how near awards come to the best schedule there is, and how the naive ones fare.

    python3 benchmarks/market.py [--seeds N] [--hosts N] [--clients N] [--actions N] [--seconds S]
        [--policies plan,cpu] [--variants plain,dead,slow,liar] [--history warm|cold] [--json FILE]

Each seed draws an emulated farm (`emulated_farm.py`) and heavy-tailed work for every client, scaled so that the whole
farm would be busy for S seconds. A warm-up build on a farm of its own teaches the clients how long their actions take.
Then every variant and policy runs in turn: fresh servers, which have learned nothing, and a copy of what the clients
have. Policies of one seed and variant see the same hosts and work.

    plain   every host is what it declares
    dead    one host is killed when a third of the lower bound has passed
    slow    one host does a tenth of what it declares
    liar    one host declares ten times what it does

Clients wait, connected, at a pipe in a first set of their own, so that all of them start at one moment. Lower bounds
are those of the true farm. `default` among the policies passes no `--policy` at all.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from emulated_clients import SETS, Run, Victim, build, draw_work
from emulated_farm import EmulatedHost, compile_work, draw_hosts, lying, slowed
from market_measures import (
    Capacity,
    Sets,
    attempts_of,
    bid_error,
    bids_against_times,
    client_bound,
    herd_index,
    jain_index,
    lower_bound,
    rank_correlation,
    until_truly_free,
)

from rakefarm.server.sandbox import choose_root

MAKESPAN_TARGETS = {"plain": 1.35, "dead": 1.40, "slow": 1.50, "liar": 1.60}
TARGETS = {"herd": 0.01, "messages": 8.0, "jain": 0.97, "bid_error": 0.25, "rank": 0.80}
PATIENCE = 40.0
MINIMUM_PATIENCE_S = 60.0
"""A client that takes longer than this and so many times the planned seconds is ended; what it had not done is lost."""


@dataclass(frozen=True)
class Measures:
    """What one run amounts to. Times in seconds, `busy` the share of this machine's cores that was in use; None where
    the clients' events don't tell. `lost` counts actions without a success, or whose command never ran to its end."""

    seed: int
    variant: str
    policy: str
    makespan_s: float
    bound_s: float
    ratio: float
    herd: float
    messages: float | None
    jain: float
    bid_error: float | None
    rank: float | None
    awards: int
    lost: int
    busy: float


def capacity_of(hosts: Sequence[EmulatedHost], run: Run) -> Capacity:
    """What the true farm could do from the start of the run on."""
    full = sum(host.capacity for host in hosts)
    steps = [(0.0, full)]
    for address, killed_s in run.killed.items():
        steps.append((killed_s - run.started_s, full - hosts[run.addresses.index(address)].capacity))
    return Capacity(tuple(steps), max(host.true_speed for host in hosts))


def measure(
    seed: int, variant: str, policy: str, hosts: Sequence[EmulatedHost], work: Sequence[Sets], run: Run
) -> Measures:
    """What the run amounts to."""
    attempts = [attempt for records in run.clients for attempt in attempts_of(records)]
    last = [records[-1] for records in run.clients]
    ended_s = [
        (record["time_s"] if record["event"] == "build_finished" else run.ended_s) - run.started_s for record in last
    ]
    capacity = capacity_of(hosts, run)
    bound_s = lower_bound(work, capacity)
    pairs = bids_against_times(attempts)
    slots = {address: host.cores for address, host in zip(run.addresses, hosts, strict=True)}
    actions = sum(len(works) for sets in work for works in sets)
    done = {attempt.tag for attempt in attempts if attempt.succeeded} & {tag for _, tag in run.worked}
    messages = [record["messages"] for record in last if "messages" in record]
    return Measures(
        seed=seed,
        variant=variant,
        policy=policy,
        makespan_s=max(ended_s),
        bound_s=bound_s,
        ratio=max(ended_s) / bound_s,
        herd=herd_index([until_truly_free(each, run.worked) for each in attempts], slots, run.killed),
        messages=sum(messages) / actions if len(messages) == len(last) else None,
        jain=jain_index([end / client_bound(sets, capacity) for end, sets in zip(ended_s, work, strict=True)]),
        bid_error=bid_error(pairs),
        rank=rank_correlation(pairs),
        awards=len(attempts),
        lost=actions - len(done),
        busy=run.busy,
    )


# --- a benchmark of many runs --------------------------------------------------------------------------


def honest(host: EmulatedHost) -> EmulatedHost:
    """The host as it is."""
    return host


AFFLICTIONS: dict[str, Callable[[EmulatedHost], EmulatedHost]] = {
    "plain": honest,
    "dead": honest,
    "slow": slowed,
    "liar": lying,
}


def run_seed(seed: int, options: argparse.Namespace, program: str) -> list[Measures]:
    """Every variant and policy with the hosts and the work of one seed."""
    draw = random.Random(seed)
    hosts = draw_hosts(options.hosts, draw)
    afflicted = draw.randrange(options.hosts)
    total = options.seconds * sum(host.capacity for host in hosts)
    work = draw_work(options.clients, options.actions, total, draw)
    patience_s = MINIMUM_PATIENCE_S + PATIENCE * options.seconds
    measures = []
    with tempfile.TemporaryDirectory(prefix="learned-", dir=os.path.dirname(program)) as learned:
        if options.history == "warm":
            build(hosts, work, program, "default", patience_s, keep=learned)
        for variant in options.variants:
            farm = [AFFLICTIONS[variant](host) if number == afflicted else host for number, host in enumerate(hosts)]
            for policy in options.policies:
                victim = Victim(afflicted, options.seconds / 3) if variant == "dead" else None
                run = build(farm, work, program, policy, patience_s, victim=victim, learned=learned)
                measures.append(measure(seed, variant, policy, farm, work, run))
                print(progress_line(measures[-1]), file=sys.stderr, flush=True)
    return measures


def progress_line(one: Measures) -> str:
    """One run in a line."""
    return (
        f"seed {one.seed} {one.variant} {one.policy}: {one.makespan_s:.2f} s, bound {one.bound_s:.2f} s,"
        f" ratio {one.ratio:.2f}, herd {one.herd:.3f}, {one.awards} awards, {one.lost} lost,"
        f" machine {one.busy:.0%} busy"
    )


def summary_line(several: Sequence[Measures]) -> str:
    """The medians of one variant and policy over all seeds, each with its target."""

    def median(name: str, form: str, relation: str, target: float) -> str:
        values = [value for one in several if (value := getattr(one, name)) is not None]
        shown = f"{statistics.median(values):{form}}" if values else "unknown"
        return f"{shown} ({relation} {target:{form}})"

    first = several[0]
    return (
        f"{first.variant:5} {first.policy:12}"
        f" makespan/bound {median('ratio', '.2f', '≤', MAKESPAN_TARGETS[first.variant])}"
        f" herd {median('herd', '.3f', '≤', TARGETS['herd'])}"
        f" messages {median('messages', '.1f', '≤', TARGETS['messages'])}"
        f" Jain {median('jain', '.3f', '≥', TARGETS['jain'])}"
        f" bid error {median('bid_error', '.2f', '≤', TARGETS['bid_error'])}"
        f" rank {median('rank', '.2f', '≥', TARGETS['rank'])}"
        f" lost {sum(one.lost for one in several)} (= 0)"
        f"; {len(several)} seeds, {statistics.median(one.makespan_s for one in several):.1f} s a run,"
        f" machine {statistics.median(one.busy for one in several):.0%} busy"
    )


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the market on a real farm of emulated hosts.")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="farms to draw (default: 10)")
    parser.add_argument("--first-seed", type=int, default=1, metavar="N", help="the first of them (default: 1)")
    parser.add_argument("--hosts", type=int, default=10, metavar="N", help="hosts of a farm (default: 10)")
    parser.add_argument("--clients", type=int, default=4, metavar="N", help="clients at once (default: 4)")
    parser.add_argument("--actions", type=int, default=60, metavar="N", help="actions a set (default: 60)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="work / capacity (default: 5 s)")
    parser.add_argument("--policies", default="plan,cpu", metavar="LIST", help="award policies (default: plan,cpu)")
    parser.add_argument("--variants", default="plain,dead,slow,liar", metavar="LIST", help="of the farm (default: all)")
    parser.add_argument("--history", choices=("warm", "cold"), default="warm", help="a warm-up build before (default)")
    parser.add_argument("--json", metavar="FILE", help="write every run's measures to FILE")
    options = parser.parse_args()
    options.policies = options.policies.split(",")
    options.variants = options.variants.split(",")
    if unknown := set(options.variants) - set(AFFLICTIONS):
        parser.error(f"no such variant: {', '.join(sorted(unknown))}; there are {', '.join(AFFLICTIONS)}")
    return options


def main() -> None:
    """Run all seeds; print one line a variant and policy. Exits with 1 when an action was lost."""
    options = parse_options()
    began = time.monotonic()
    measures: list[Measures] = []
    root = choose_root("", os.environ.get("TMPDIR", ""))
    with tempfile.TemporaryDirectory(prefix="rakefarm-bench-", dir=root) as directory:
        os.chmod(directory, 0o711)  # commands find their program below it, whatever their uids
        program = compile_work(directory)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            measures += run_seed(seed, options, program)
    print(
        f"{options.hosts} hosts, {options.clients} clients, {SETS} sets of {options.actions} actions,"
        f" {options.history} history; medians, targets in brackets; {time.monotonic() - began:.0f} s in all"
    )
    for variant in options.variants:
        for policy in options.policies:
            print(summary_line([one for one in measures if (one.variant, one.policy) == (variant, policy)]))
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            json.dump([asdict(one) for one in measures], file, indent=1)
    if any(one.lost for one in measures):
        sys.exit(1)


if __name__ == "__main__":
    main()
