"""Experiments by the command line: plans, resumption, reproducible files."""

import sys
from pathlib import Path

import pytest

from rakefarm.cli import main

pytest.importorskip("matplotlib")

PLAN = """name = "a <b>"
policies = ["plan", "random"]
seeds = 2
[scenario]
like = "light"
hosts = 3
workload = {clients = 1, actions = 6}
[factors]
sample_s = [0.5, 5.0]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "my plan.toml"
    path.write_text(PLAN)
    return path


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_an_experiment_is_reproduced_byte_for_byte_and_resumed(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = plan.parent / "one", plan.parent / "other"
    assert main(["experiment", "run", str(plan), "--out", str(one), "-j", "2"]) == 0
    assert "only 2 pairs" in capsys.readouterr().out
    assert main(["experiment", "run", str(plan), "--out", str(other), "-j", "1"]) == 0
    assert files_of(one) == files_of(other)
    assert {"ratios.svg", "gantt.png", "runs.csv", "actions.jsonl", "manifest.json"} <= files_of(one).keys()
    assert b"a &lt;b&gt;" in files_of(one)["index.html"]
    kept = one / "parts" / "0000001.jsonl"
    (one / "parts" / "0000002.jsonl").unlink()
    before = kept.stat().st_mtime_ns
    assert main(["experiment", "run", str(plan), "--out", str(one)]) == 0
    assert kept.stat().st_mtime_ns == before and files_of(one) == files_of(other)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policies = [", "my plan.toml"),
        ("policies = []", "policies"),
        ('policies = ["plan"]\nseedz = 1', "seedz"),
        ('policies = ["nobody"]', "nobody"),
        ('policies = ["plan"]\n[scenario]\nhosts = -1', "hosts"),
        ('policies = ["plan"]\n[scenario]\nlike = "x"', "light"),
        ('policies = ["plan"]\n[factors]\n"a.b" = [1]', "a.b"),
        ('policies = ["plan"]\n[scenario]\nworkload = {trace = "none.csv"}', "none.csv"),
        ('policies = ["plan"]\n[scenario]\nbid = "nothing"', "nothing"),
    ],
)
def test_a_plan_that_makes_no_sense_is_told_of_in_one_line(
    plan: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan.write_text(text)
    assert main(["experiment", "run", str(plan)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_results_of_another_plan_are_not_touched(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = plan.parent / "out"
    assert main(["experiment", "run", str(plan), "--out", str(out)]) == 0
    plan.write_text(PLAN.replace("seeds = 2", "seeds = 3"))
    assert main(["experiment", "run", str(plan), "--out", str(out)]) == 2
    assert "another experiment" in capsys.readouterr().err


def test_quick_published_results_are_found_again(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("balls", "graham"):
        assert main(["experiment", "check", "--only", name]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_a_policy_is_begun_and_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["policy", "new", "mine"]) == 0
    assert main(["policy", "new", "mine"]) == 2
    assert main(["policy", "new", "not a name"]) == 2
    Path("p.toml").write_text(PLAN.replace('"random"', '"mine.py:make"'))
    assert main(["experiment", "run", "p.toml"]) == 0
    assert "mine.py:make / plan" in capsys.readouterr().out


def test_parquet_has_the_columns_of_the_table(plan: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = plan.parent / "out"
    assert main(["experiment", "run", str(plan), "--out", str(out), "--parquet"]) == 0
    table = parquet.read_table(out / "runs.parquet")
    header, *lines = (out / "runs.csv").read_text().splitlines()
    assert table.column_names == header.split(",") and table.num_rows == len(lines)
    assert parquet.read_table(out / "actions.parquet").num_rows == len((out / "actions.jsonl").read_text().splitlines())


def test_without_arrow_parquet_is_refused_in_one_line(
    plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert main(["experiment", "run", str(plan), "--parquet"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "rakefarm[parquet]" in lines[0]
    assert not (plan.parent / "my plan-results").exists()
