"""Runs an experiment: in parallel, resumable, each run reproducible from the manifest.

DIRECTORY/
  manifest.json   what was run: plan, digest, versions, machine
  parts/          one file a run, written whole; what is there need not be run again
  runs.csv        a row a run          actions.jsonl   a line an award
  plots, page     see `plots` and `page`
"""

import csv
import io
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from msgspec import structs

from rakefarm import __version__
from rakefarm.client.policies import find_policy
from rakefarm.lab.draw import LabError, draw
from rakefarm.lab.guard import PolicyFailed
from rakefarm.lab.measures import measure, refer
from rakefarm.lab.plan_file import Experiment, RunSpec
from rakefarm.lab.world import simulate
from rakefarm.server.bid_guard import find_bid

Row = dict[str, object]
Done = Callable[[int, int], object]
"""Told how many runs are done, of how many."""
FAILURES = (PolicyFailed, LabError)


def run_part(run: RunSpec, directory: str) -> None:
    """In a worker process: run it, and keep what came of it. Raises PolicyFailed, ConfigError or LabError."""
    drawn = draw(run.cell.scenario, run.seed)
    outcome = simulate(drawn, run.policy, find_policy(run.policy), find_bid(drawn.scenario.bid))
    row = {**head(run), "machine_busy": None, **structs.asdict(measure(drawn, refer(drawn), outcome))}
    keep_part(run, directory, row, [structs.asdict(attempt) for attempt in outcome.attempts])


def head(run: RunSpec) -> Row:
    """What identifies a run, in its row."""
    factors: Row = dict(run.cell.factors)
    named: Row = {"run": run.number, "mode": run.mode, "policy": run.policy, "seed": run.seed}
    return {**named, "repetition": run.repetition, **factors}


def keep_part(run: RunSpec, directory: str, row: Row, awards: Sequence[Row]) -> None:
    """The run's row and awards, whole or not at all."""
    lines = [row, *({"run": run.number, **award} for award in awards)]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    write_whole(part_path(directory, run.number), text)


def part_path(directory: str, number: int) -> str:
    """Where a run's part is kept."""
    return os.path.join(directory, "parts", f"{number:07d}.jsonl")


def write_whole(path: str, text: str) -> None:
    """The file has all of it, or is not there."""
    beside = f"{path}-{os.getpid()}"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(beside, path)


def open_directory(directory: str, experiment: Experiment, modes: Sequence[str]) -> None:
    """Make it, or see that it is this very experiment's. Raises LabError."""
    manifest, before = os.path.join(directory, "manifest.json"), None
    now = manifest_of(experiment, modes)
    try:
        os.makedirs(os.path.join(directory, "parts"), exist_ok=True)
        if os.path.exists(manifest):
            with open(manifest, encoding="utf-8") as file:
                before = json.load(file)
        else:
            write_whole(manifest, json.dumps(now, indent=1) + "\n")
    except (OSError, ValueError) as error:
        raise LabError(f"{directory}: {getattr(error, 'strerror', None) or error}") from error
    if before is not None:
        differs = [key for key in ("plan_sha256", "modes", "rakefarm") if before.get(key) != now[key]]
        if differs:
            raise LabError(f"{directory}: has the runs of another experiment ({differs[0]}); name another with --out")


def manifest_of(experiment: Experiment, modes: Sequence[str]) -> Row:
    """All that a run follows from: with the plan, a seed and this version it is the same again."""
    plan = experiment.plan
    return {
        "name": plan.name,
        "plan": experiment.text,
        "plan_sha256": experiment.digest,
        "modes": list(modes),
        "seeds": [plan.first_seed, plan.first_seed + plan.seeds - 1],
        "rakefarm": __version__,
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }


def run_all(runs: Sequence[RunSpec], directory: str, workers: int, done: Done) -> None:
    """What of these runs is not there yet. Raises PolicyFailed, LabError or ConfigError of the first that fails."""
    left = [run for run in runs if not os.path.exists(part_path(directory, run.number))]
    finished = len(runs) - len(left)
    waiting: Iterator[RunSpec] = iter(left)
    pool = ProcessPoolExecutor(max_workers=workers)
    try:
        # A few at a time: what is queued is pickled, and a failure ends the rest.
        open_runs: set[Future[None]] = set()
        while True:
            while len(open_runs) < 2 * workers and (run := next(waiting, None)) is not None:
                open_runs.add(pool.submit(run_part, run, directory))
            done(finished, len(runs))
            if not open_runs:
                return
            ended, open_runs = wait(open_runs, return_when=FIRST_COMPLETED)
            for each in ended:
                each.result()
                finished += 1
    except BrokenProcessPool as error:
        raise LabError("a worker process ended; start the same again, and it goes on where it was") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def gather(runs: Sequence[RunSpec], directory: str) -> tuple[list[Row], list[Row]]:
    """Rows and awards of all runs, in their order; also written to runs.csv and actions.jsonl. Raises LabError."""
    rows: list[Row] = []
    actions: list[Row] = []
    for run in runs:
        try:
            with open(part_path(directory, run.number), encoding="utf-8") as file:
                row, *awards = [json.loads(line) for line in file]
        except (OSError, ValueError) as error:
            raise LabError(f"{part_path(directory, run.number)}: {error}; remove it and start again") from error
        rows.append(row)
        actions += awards
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(os.path.join(directory, "runs.csv"), table.getvalue())
    lines = "".join(json.dumps(action, separators=(",", ":")) + "\n" for action in actions)
    write_whole(os.path.join(directory, "actions.jsonl"), lines)
    return rows, actions
