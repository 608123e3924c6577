"""The documents of what must be shown name tests and benchmarks that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*-checks.md")), ids=lambda path: path.stem)
def test_everything_that_is_named_is_there(document: Path) -> None:
    named = re.findall(r"`((?:tests|benchmarks|scripts)/[\w/]+\.py)(?:::(\w+))?[^`]*`", document.read_text("utf-8"))
    assert len(named) > 10
    for path, test in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, f"{path}::{test}"
