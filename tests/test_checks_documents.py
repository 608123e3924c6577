"""The documents of what must be shown name tests and benchmarks that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", sorted(path.name.removesuffix("-checks.md") for path in (ROOT / "docs").glob("*-checks.md")))
def test_everything_that_is_named_is_there(name: str) -> None:
    document = (ROOT / "docs" / f"{name}-checks.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|benchmarks|scripts)/[\w/]+\.py)(?:::(\w+))?[^`]*`", document)
    assert len(named) > 10
    for path, test in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, f"{path}::{test}"
