"""The exercises of docs/bidding.md come out as it says they do, with fewer seeds; their plans are in examples/lab."""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import pytest

from rakefarm.cli import main

pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the exercises, and where we are."""
    shutil.copytree(ROOT / "examples" / "lab", tmp_path / "lab")
    monkeypatch.chdir(tmp_path / "lab")
    return tmp_path / "lab"


def run(directory: Path, name: str, seeds: int) -> list[dict[str, str]]:
    """Its rows, of so many worlds."""
    plan = directory / f"{name}.toml"
    plan.write_text(re.sub(r"^seeds = \d+$", f"seeds = {seeds}", plan.read_text(), flags=re.MULTILINE))
    assert main(["experiment", "run", str(plan), "-j", "2"]) == 0
    with open(directory / f"{name}-results" / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def values(rows: list[dict[str, str]], column: str, **where: str) -> list[float]:
    return [float(row[column]) for row in rows if all(row[name] == value for name, value in where.items())]


@pytest.mark.slow
def test_stale_load_makes_a_herd_of_those_who_read_it(directory: Path) -> None:
    plan = directory / "herding.toml"
    plan.write_text(plan.read_text().replace("[0.001, 0.1, 10.0]", "[0.001, 10.0]"))
    rows = run(directory, "herding", 4)

    def of(policy: str, column: str, age: str) -> list[float]:
        return values(rows, column, policy=policy, sample_s=age)

    fresh, stale = (of("idlest.py:make", "makespan_s", age) for age in ("0.001", "10.0"))
    assert all(old > new for old, new in zip(stale, fresh, strict=True))
    assert sum(fresh) < 1.2 * sum(of("random", "makespan_s", "0.001"))
    assert sum(stale) > 2.0 * sum(of("random", "makespan_s", "10.0"))
    assert sum(of("idlest.py:make", "herd", "10.0")) > sum(of("idlest.py:make", "herd", "0.001")) + 0.5
    two = [of("two-choices", "makespan_s", age) for age in ("0.001", "10.0")]
    assert two[0] == two[1], "it reads no sample"


@pytest.mark.slow
def test_two_choices_are_shorter_than_one(directory: Path) -> None:
    rows = run(directory, "two-choices", 6)
    one, two = (values(rows, "makespan_s", policy=policy) for policy in ("random", "two-choices"))
    ratios = [math.log(b / a) for a, b in zip(one, two, strict=True)]
    assert math.exp(sum(ratios) / len(ratios)) < 0.9


def test_who_pays_the_second_price_pays_more_and_wins_the_same(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(directory, "second-price", 6)
    first, second = (values(rows, "makespan_s", policy=policy) for policy in ("lowest", "second.py:make"))
    assert first == second
    assert "1.000 (1.000 to 1.000): no difference shown" in capsys.readouterr().out
    policy_of = {row["run"]: row["policy"] for row in rows}
    paid: dict[str, list[float]] = {"lowest": [], "second.py:make": []}
    with open(directory / "second-price-results" / "actions.jsonl") as file:
        for award in map(json.loads, file):
            paid[policy_of[str(award["run"])]].append(award["price"])
    pairs = list(zip(*paid.values(), strict=True))
    assert sum(b for _, b in pairs) > sum(a for a, _ in pairs)
