"""`rakefarm calibrate`: reads the ledger and shows how good the bids were. `market/calibration` has the numbers."""

import math
from collections.abc import Mapping
from typing import TextIO

import msgspec

from rakefarm.client.board import safe_text
from rakefarm.client.ledger_reader import LAST, choose_run, open_ledger
from rakefarm.client.tables import Sheet, draw_tables
from rakefarm.config import ConfigError
from rakefarm.events import SCHEMA_VERSION
from rakefarm.exitcodes import ExitStatus
from rakefarm.market.calibration import Accuracy, Calibration
from rakefarm.market.calibration import calibrate as calibration_of
from rakefarm.market.runs import Run, last_run, read_runs

SETTLE_S = 0.01
"""How long after its command an action may be told to have finished: its result travels, its outputs are installed."""
ALL = "all"
NOTHING = "-"


def calibrate(
    path: str | None, run: str, as_json: bool, environ: Mapping[str, str], stdout: TextIO, stderr: TextIO
) -> int:
    """Print the tables, or one object; answers the exit status. `path` is None for the user's own ledger; `run` is an
    id or the start of one, "last" or "all". Raises ConfigError for a ledger or a run that isn't there."""
    with open_ledger(path, environ) as reader:
        runs, foreign = read_runs(reader)
    skipped = reader.skipped + foreign
    if skipped:
        stderr.write(reader.warning(skipped))
    chosen = _choose(runs, run, reader.path)
    calibration = calibration_of(runs, chosen, SETTLE_S)
    if as_json:
        stdout.write(_as_json(calibration, chosen, skipped))
    else:
        _show(calibration, environ, stdout)
    return int(ExitStatus.OK)


def _choose(runs: Mapping[str, Run], run: str, path: str) -> str | None:
    """The id of one run, or None for all."""
    if not runs:
        raise ConfigError(f"{path}: there is no build in it")
    if run == ALL:
        return None
    if run == LAST:
        return last_run(runs)
    return choose_run(runs, run, path)


def _as_json(calibration: Calibration, chosen: str | None, skipped: int) -> str:
    from rakefarm.client.jsonlines import record_line

    record = {"schema": SCHEMA_VERSION, "run": chosen or ALL, "skipped_lines": skipped}
    return record_line({**record, **msgspec.to_builtins(calibration)}).decode("ascii")


# --- for a person -----------------------------------------------------------------------------------------


def _show(calibration: Calibration, environ: Mapping[str, str], stdout: TextIO) -> None:
    heading = ("host", "actions", "bid", "took", "error", "bias", "rank")
    hosts = Sheet(heading, dispensable=("took", "bid", "actions"))
    hosts.rows += [_accuracy_row(host, accuracy) for host, accuracy in calibration.hosts.items()]
    hosts.rows.append(_accuracy_row("all", calibration.overall))
    terms = Sheet(("term", "quotes", "median", "with error"))
    for name, term in calibration.terms.items():
        terms.rows.append((safe_text(name), str(term.quotes), f"{term.median:.3g}", _signed(term.correlation)))
    draw_tables([hosts, terms] if calibration.terms else [hosts], environ, stdout)
    herd, fair = calibration.herd, calibration.fairness
    awards = f"{herd.herded} of {herd.awards} awards found their host full while another had a free slot"
    if herd.passing:
        awards += f", {herd.passing} more for less than {SETTLE_S * 1000:g} ms"
    shared = f"{fair.runs} builds shared hosts at one time" if fair.runs else "no builds shared hosts at one time"
    stdout.write(f"herd index  {_number(herd.index, '.3f')}  {awards}\n")
    stdout.write(f"fairness    {_number(fair.index, '.3f')}  {shared}\n")
    stdout.write(f"builds      {calibration.runs}\n")


def _accuracy_row(name: str, accuracy: Accuracy) -> tuple[str, ...]:
    return (
        safe_text(name),
        str(accuracy.actions),
        _number(accuracy.bid_s, ".3g", " s"),
        _number(accuracy.realised_s, ".3g", " s"),
        _number(accuracy.median_error, ".0%"),
        "×" + _number(accuracy.bias, ".2f") if accuracy.bias is not None else NOTHING,
        _signed(accuracy.rank_correlation),
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:{form}}{unit}"


def _signed(value: float | None) -> str:
    return _number(value, "+.2f")
