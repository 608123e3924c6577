"""An experiment from its plan to its page."""

import os
from collections.abc import Sequence

from rakefarm.client.policies import find_policy
from rakefarm.lab import experiment as runner
from rakefarm.lab import page, plots
from rakefarm.lab.agreement import agreement, agreement_text
from rakefarm.lab.blocks import unequal_blocks
from rakefarm.lab.comparisons import Comparison, compare
from rakefarm.lab.draw import LabError
from rakefarm.lab.parquet import find_arrow, write_parquet
from rakefarm.lab.plan_file import read_plan
from rakefarm.lab.progress import shown
from rakefarm.server.bid_guard import find_bid


def conduct(plan_path: str, modes: tuple[str, ...], directory: str, jobs: int, parquet: bool = False) -> int:
    """Run what of it has not been run, write all results, as Parquet too if that is wanted, print a table; answers the
    exit status, 1 when an action was lost. Raises LabError, PolicyFailed or ConfigError."""
    if parquet:
        find_arrow()  # before the first of many runs
    experiment = read_plan(plan_path)
    for policy in experiment.plan.policies:
        find_policy(policy)
    for cell in experiment.cells:
        find_bid(cell.scenario.bid)
    runs = experiment.runs(modes)
    runner.open_directory(directory, experiment, modes)
    try:
        simulated = [run for run in runs if run.mode == "sim"]
        if simulated:
            with shown("simulated") as done:
                runner.run_all(simulated, directory, jobs, done)
        real = [run for run in runs if run.mode == "farm"]
        if real:
            from rakefarm.lab.farm_mode import run_on_farm

            with shown("on emulated hosts") as done:
                run_on_farm(real, directory, done)
        rows, actions = runner.gather(runs, directory)
        if parquet:
            write_parquet(rows, os.path.join(directory, "runs.parquet"))
            write_parquet(actions, os.path.join(directory, "actions.parquet"))
        factors = list(experiment.plan.factors)
        comparisons = compare(rows, experiment.plan.baseline or experiment.plan.policies[0], factors)
        lines = page.summaries(rows, factors)
        names = plots.draw_all(rows, actions, directory)
        notes = [f"Not alike: {line}" for line in unequal_blocks(rows, factors)]
        if (agreed := agreement(rows, factors)) is not None:
            notes.insert(0, agreement_text(agreed))
        text = page.render(runner.manifest_of(experiment, modes), lines, comparisons, names, notes, directory)
        runner.write_whole(os.path.join(directory, "index.html"), text)
    except OSError as error:
        raise LabError(f"{error.filename or directory}: {error.strerror}") from error
    _print_tables(lines, comparisons)
    for note in notes:
        print(note)
    print(f"{len(rows)} runs; results and page: {os.path.join(directory, 'index.html')}")
    return 1 if any(int(str(row["lost"])) for row in rows) else 0


def _print_tables(lines: Sequence[dict[str, str]], comparisons: Sequence[Comparison]) -> None:
    if any(line["mode"] == "farm" for line in lines):
        print("farm: real servers on this machine that stand for the hosts (emulated)")
    for line in lines:
        measures = "  ".join(f"{name} {line[name]}" for name in page.SHOWN)
        print(f"{line['mode']}  {line['cell']}  {line['policy']}: {measures}  p95 {line['p95']}  lost {line['lost']}")
    for each in comparisons:
        print(
            f"{each.mode}  {each.cell}  {each.policy} / {each.baseline}: {each.ratio:.3f}"
            f" ({each.low:.3f} to {each.high:.3f}): {each.verdict}"
        )
