"""`rakefarm calibrate`: reads the ledger and shows how good the bids were. `market/calibration` has the numbers.

Of the ledger both files are read, the older one first. A line that isn't a record of ours, or was cut by a full disk,
is skipped; all of them are one warning.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, TextIO

import msgspec

from rakefarm.client.board import safe_text
from rakefarm.client.ledger import LedgerFailed, ledger_path
from rakefarm.client.view import is_dumb
from rakefarm.config import ConfigError
from rakefarm.events import SCHEMA_VERSION
from rakefarm.exitcodes import ExitStatus
from rakefarm.market.calibration import Accuracy, Calibration
from rakefarm.market.calibration import calibrate as calibration_of
from rakefarm.market.runs import Run, last_run, read_runs

SETTLE_S = 0.01
"""How long after its command an action may be told to have finished: its result travels, its outputs are installed."""
ALL, LAST = "all", "last"
NOTHING = "-"

Rows = list[tuple[str, ...]]


class LedgerReader:
    """The records of a ledger's files. `skipped` counts the lines that were none, once all are read."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError when there is no ledger, or none that can be read."""
        self.path = path
        self.skipped = 0
        # The younger first: whatever is renamed meanwhile, no line is missed. The same file twice is read once.
        files = [_open(path), _open(path + ".1")]
        self._files = [file for file in files if file is not None]
        if len(self._files) == 2 and os.path.samestat(*(os.fstat(file.fileno()) for file in self._files)):
            self._files.pop().close()
        if not self._files:
            raise ConfigError(f"{path}: there is no ledger; a build keeps one, unless its settings say ledger = false")

    def __iter__(self) -> Iterator[dict[str, object]]:
        """Every record, in order; the files are read once."""
        decode = msgspec.json.Decoder().decode
        for file in reversed(self._files):
            with file:
                for line in file:
                    if not line.strip():
                        continue  # put before a line by who found the last one cut
                    try:
                        record = decode(line)
                    except (msgspec.DecodeError, RecursionError):
                        record = _decode_slowly(line)
                    if isinstance(record, dict) and record.get("schema") == SCHEMA_VERSION:
                        yield record
                    else:
                        self.skipped += 1


def _open(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _decode_slowly(line: bytes) -> object:
    """As the line's JSON, or None. A name that isn't UTF-8 is told in lone surrogates, which msgspec refuses."""
    import json

    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def calibrate(
    path: str | None, run: str, as_json: bool, environ: Mapping[str, str], stdout: TextIO, stderr: TextIO
) -> int:
    """Print the tables, or one object; answers the exit status. `path` is None for the user's own ledger; `run` is an
    id or the start of one, "last" or "all". Raises ConfigError for a ledger or a run that isn't there."""
    try:
        reader = LedgerReader(path or ledger_path(environ))
    except LedgerFailed as error:
        raise ConfigError(str(error)) from error
    runs, foreign = read_runs(reader)
    skipped = reader.skipped + foreign
    if skipped:
        lines = "1 line that is" if skipped == 1 else f"{skipped} lines that are"
        stderr.write(f"rakefarm: warning: {safe_text(reader.path)}: skipped {lines} cut or foreign\n")
    chosen = _choose(runs, run, reader.path)
    calibration = calibration_of(runs, chosen, SETTLE_S)
    try:
        if as_json:
            stdout.write(_as_json(calibration, chosen, skipped))
        else:
            _show(calibration, environ, stdout)
        stdout.flush()
    except BrokenPipeError:
        # Whoever read it is gone. What is still in the buffer must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return 141
    return int(ExitStatus.OK)


def _choose(runs: Mapping[str, Run], run: str, path: str) -> str | None:
    """The id of one run, or None for all."""
    if not runs:
        raise ConfigError(f"{path}: there is no build in it")
    if run == ALL:
        return None
    if run == LAST:
        return last_run(runs)
    found = [run] if run in runs else [run_id for run_id in runs if run and run_id.startswith(run)]
    if len(found) != 1:
        raise ConfigError(f"--run {run}: {'several runs begin' if found else 'no run begins'} so in {path}")
    return found[0]


def _as_json(calibration: Calibration, chosen: str | None, skipped: int) -> str:
    from rakefarm.client.jsonlines import record_line

    record = {"schema": SCHEMA_VERSION, "run": chosen or ALL, "skipped_lines": skipped}
    return record_line({**record, **msgspec.to_builtins(calibration)}).decode("ascii")


# --- for a person -----------------------------------------------------------------------------------------


def _show(calibration: Calibration, environ: Mapping[str, str], stdout: TextIO) -> None:
    hosts: Rows = [("host", "actions", "bid", "took", "error", "bias", "rank")]
    hosts += [_accuracy_row(host, accuracy) for host, accuracy in calibration.hosts.items()]
    hosts.append(_accuracy_row("all", calibration.overall))
    terms: Rows = [("term", "quotes", "median", "with error")]
    for name, term in calibration.terms.items():
        terms.append((safe_text(name), str(term.quotes), f"{term.median:.3g}", _signed(term.correlation)))
    draw = _draw_columns if not stdout.isatty() or is_dumb(environ) else _draw_tables
    draw([hosts, terms] if calibration.terms else [hosts], stdout)
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


def _draw_columns(tables: Sequence[Rows], stdout: TextIO) -> None:
    for rows in tables:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *others in rows:
            cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
            stdout.write("  ".join([f"{first:<{widths[0]}}", *cells]) + "\n")
        stdout.write("\n")


def _draw_tables(tables: Sequence[Rows], stdout: TextIO) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stdout)
    for header, *rows in tables:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left", no_wrap=bool(number))
        for row in rows:
            table.add_row(*map(Text, row))  # Text: [::1]:6238 is no markup
        console.print(table)
