"""`rakefarm replay`: a recorded build decided again, offline, by other policies."""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rakefarm import standard
from rakefarm.client.ledger_reader import LAST, LedgerReader, open_ledger
from rakefarm.commands.experiment import whole_number
from rakefarm.config import ConfigError
from rakefarm.exitcodes import ExitStatus

if TYPE_CHECKING:
    from rakefarm.lab.recorded_build import RecordedBuild

OTHERS = 10
"""So many other builds of the ledger, the last ones, tell what commands take on other hosts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a replay."""
    parser.add_argument(
        "ledger",
        nargs="?",
        metavar="LEDGER",
        help="a ledger, or what --json=FILE has written (default: this user's ledger)",
    )
    parser.add_argument(
        "--policy", metavar="NAME", action="append", required=True, help="what decides it again; may be repeated"
    )
    parser.add_argument(
        "--run", dest="run_id", default=LAST, metavar="ID", help="a build by its id or the start of it (default: last)"
    )
    parser.add_argument("--seed", metavar="N", default="1", help="another draw, for a policy that draws lots")
    parser.add_argument("--all", action="store_true", help="show every choice that differs")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.client.recorded import begun_runs, find_run, read_run
    from rakefarm.lab.draw import LabError
    from rakefarm.lab.guard import PolicyFailed
    from rakefarm.lab.recorded_build import NotTold, recorded_build
    from rakefarm.lab.replay import as_record, replay
    from rakefarm.lab.replay_report import show

    seed = whole_number(options.seed, "--seed", 0)
    with open_ledger(options.ledger, environ) as reader:
        run_id = find_run(reader, options.run_id)
        events, skipped = read_run(reader, run_id)
        others = _others(reader, [each for each in begun_runs(reader) if each != run_id][-OTHERS:])
    if skipped:
        sys.stderr.write(reader.warning(skipped))
    try:
        found = replay(recorded_build(events), others, options.policy, seed)
    except NotTold as error:
        raise ConfigError(f"build {run_id} of {reader.path} can't be replayed: {error}") from error
    except (LabError, PolicyFailed) as error:
        raise ConfigError(str(error)) from error

    def tell() -> int:
        if options.json:
            from rakefarm.client.jsonlines import record_line

            sys.stdout.write(record_line(as_record(found)).decode("ascii"))
        else:
            show(found, options.all, environ, sys.stdout)
        return int(ExitStatus.OK)

    return standard.printed(tell)


def _others(reader: LedgerReader, run_ids: list[str]) -> list["RecordedBuild"]:
    """Those of these builds that tell enough."""
    from rakefarm.client.recorded import read_runs
    from rakefarm.lab.recorded_build import NotTold, recorded_build

    found = []
    for events in read_runs(reader, run_ids)[0].values():
        try:
            found.append(recorded_build(events))
        except NotTold:
            continue
    return found
