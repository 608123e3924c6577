"""Rows as Parquet, for whoever reads them with Arrow, DuckDB or pandas: the columns of runs.csv and actions.jsonl."""

import os
from collections.abc import Sequence
from typing import Any

from rakefarm.lab.comparisons import Row
from rakefarm.lab.draw import LabError


def find_arrow() -> Any:
    """What writes it. Raises LabError when that is not installed."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise LabError("--parquet needs pyarrow: pip install 'rakefarm[parquet]'") from error
    return pyarrow


def write_parquet(rows: Sequence[Row], path: str) -> None:
    """One file of these rows, replaced whole. Raises LabError or OSError."""
    arrow = find_arrow()
    beside = f"{path}-{os.getpid()}"
    arrow.parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows]), beside)
    os.replace(beside, path)
