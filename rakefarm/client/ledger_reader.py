"""Reads the ledger back: its lines as records, and which build is meant.

Of the ledger both files are read, the older one first. A line that isn't a record of ours, or was cut by a full disk,
is skipped.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, Self

import msgspec

from rakefarm.client.board import safe_text
from rakefarm.client.ledger import LedgerFailed, ledger_path
from rakefarm.config import ConfigError
from rakefarm.events import SCHEMA_VERSION

LAST = "last"


class LedgerReader:
    """The records of a ledger's files; a context manager. Once all are read, `skipped` counts the lines that
    were none."""

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
        """Every record, in order; each time from the start."""
        self.skipped = 0
        decode = msgspec.json.Decoder().decode
        for file in reversed(self._files):
            file.seek(0)
            for line in file:
                if not line.strip():
                    continue  # put before a line by who found the last one cut
                try:
                    record = decode(line)
                except (msgspec.DecodeError, RecursionError):
                    record = decode_slowly(line)
                if isinstance(record, dict) and record.get("schema") == SCHEMA_VERSION:
                    yield record
                else:
                    self.skipped += 1

    def warning(self, skipped: int) -> str:
        """The line about so many lines that were none of ours."""
        lines = "1 line that is" if skipped == 1 else f"{skipped} lines that are"
        return f"rakefarm: warning: {safe_text(self.path)}: skipped {lines} cut or foreign\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()


def open_ledger(path: str | None, environ: Mapping[str, str]) -> LedgerReader:
    """The ledger at `path`, or this user's. Raises ConfigError when there is none."""
    try:
        return LedgerReader(path or ledger_path(environ))
    except LedgerFailed as error:
        raise ConfigError(str(error)) from error


def choose_run(run_ids: Iterable[str], run: str, path: str) -> str:
    """The id of the one run that is `run`, or begins so. Raises ConfigError for none and for several."""
    found: list[str] = []
    for run_id in run_ids:
        if run_id == run:
            return run_id
        if run and run_id.startswith(run):
            found.append(run_id)
    if len(found) != 1:
        raise ConfigError(f"--run {run}: {'several runs begin' if found else 'no run begins'} so in {path}")
    return found[0]


def decode_slowly(line: bytes) -> object:
    """As the line's JSON, or None. A name that isn't UTF-8 is told in lone surrogates, which msgspec refuses."""
    import json

    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _open(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
