"""`docs/market-checks.md` names tests and benchmarks that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "market-checks.md").read_text(encoding="utf-8")


def test_everything_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`", DOCUMENT)
    assert len(named) > 10
    for path, test in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, f"{path}::{test}"
