"""`rakefarm bench`: builds in blocks, the same statistics as of experiments, and no winner that the data don't show."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_vocabulary import open_to_commands

pytest.importorskip("scipy")

from rakefarm.cli import main
from rakefarm.lab.bench import Bench, Run
from rakefarm.lab.bench_report import evaluate
from rakefarm.lab.blocks import in_turn, is_unequal, unequal_blocks
from rakefarm.lab.comparisons import FEWEST_TO_SHOW, compare_ratios, winner_of
from rakefarm.lab.draw import draw
from rakefarm.lab.emulation import EmulatedFarm, compile_work
from rakefarm.lab.loopback import scenario_of

# --- order and statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_block_is_a_round_and_its_mirror_image(seed: int) -> None:
    for block in range(4):
        first, second = (in_turn("ABC", 2 * block + half, seed) for half in (0, 1))
        assert sorted(first) == list("ABC") and second == first[::-1]


def test_who_begins_is_drawn() -> None:
    begun = Counter(in_turn("AB", 2 * block, seed)[0] for block in range(20) for seed in range(20))
    assert 150 < begun["A"] < 250


def test_few_pairs_show_nothing_however_far_apart() -> None:
    times = {"a": [1.0] * (FEWEST_TO_SHOW - 1), "b": [2.0] * (FEWEST_TO_SHOW - 1)}
    assert winner_of(times) is None
    assert compare_ratios("all", "farm", "b", "a", [2.0] * (FEWEST_TO_SHOW - 1)).verdict.startswith("no difference")
    times = {"a": [1.0] * FEWEST_TO_SHOW, "b": [2.0] * FEWEST_TO_SHOW}
    assert winner_of(times) == "a"
    assert "100.0% longer" in compare_ratios("all", "farm", "b", "a", [2.0] * FEWEST_TO_SHOW).verdict


@pytest.mark.parametrize(("pairs", "policies"), [(6, 2), (10, 2), (10, 4), (30, 2)])
def test_of_equals_hardly_ever_one_is_named(pairs: int, policies: int) -> None:
    """The share of wrong winners is what 95 % mean, also for few pairs and among several."""
    chance = random.Random(7)
    trials = 300
    wrong = 0
    for _ in range(trials):
        times = {str(name): [chance.lognormvariate(0.0, 0.1) for _ in range(pairs)] for name in range(policies)}
        wrong += winner_of(times) is not None
    assert wrong / trials < 0.09


def test_a_true_difference_is_found() -> None:
    chance = random.Random(7)
    times = {"a": [chance.lognormvariate(0.0, 0.05) for _ in range(12)]}
    times["b"] = [1.2 * chance.lognormvariate(0.0, 0.05) for _ in range(12)]
    assert winner_of(times) == "a"


def run_of(policy: str, number: int, seconds: float, **changes: object) -> Run:
    fields = {"hosts_busy": 0.0, "machine_busy": 0.5, "messages": 1, "hosts": ("h",), "left_out": (), "retried": 0}
    return Run(policy=policy, round=number, seconds=seconds, **{**fields, **changes})  # type: ignore[arg-type]


def test_blocks_that_were_not_made_alike_are_flagged() -> None:
    bench = Bench(("a", "b"), 6, 0, ())
    runs = [run_of(policy, number, 1.0) for number in range(6) for policy in "ab"]
    assert not any(block.unequal for block in evaluate(bench, runs).blocks)
    runs[0] = run_of("a", 0, 1.0, hosts_busy=0.5)
    runs[4] = run_of("a", 2, 1.0, machine_busy=0.9)
    runs[9] = run_of("b", 4, 1.0, left_out=("h",))
    assert [block.unequal for block in evaluate(bench, runs).blocks] == [True, True, True]
    assert is_unequal([0.1, 0.4]) and not is_unequal([0.1, 0.2]) and not is_unequal([])


def test_rounds_of_an_experiment_that_were_not_made_alike_are_told_of() -> None:
    rows = [
        {"seed": seed, "repetition": 0, "machine_busy": busy, "x": "1"}
        for seed, shares in ((1, (0.1, 0.2)), (2, (0.1, 0.9)))
        for busy in shares
    ]
    lines = unequal_blocks(rows, ["x"])
    assert len(lines) == 1 and "seed 2" in lines[0] and "10% to 90%" in lines[0]


# --- whole benches ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedFarm]:
    """Two alike hosts."""
    place = tmp_path_factory.mktemp("farm")
    open_to_commands(place)
    with EmulatedFarm(draw(scenario_of(2, ("alike",)), 1).hosts, compile_work(str(place)), str(place)) as started:
        yield started


@pytest.fixture
def project(farm: EmulatedFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Rakefile of six actions, the user's state and configuration, and where we are."""
    place = tmp_path / "project"
    place.mkdir()
    lines = [f"HOSTS = {' '.join(farm.addresses)}", "all:"]
    for tag in range(6):
        lines += [f"\tremote-work 0.05 {tag}", "\t\trequires", "\t\trepeatable"]
    lines += ["then:", "\techo again >> made"]
    (place / "Rakefile").write_text("\n".join(lines) + "\n")
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(place)
    return place


def test_a_bench_of_ones_own_build(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--repeat", "2", "--prepare", "echo x >> prepared", "--json", "found.json", "--keep-ledger", "kept"]
    assert main(["bench", "--policies", "plan,round-robin", *words]) == 0
    out = capsys.readouterr().out
    assert "no difference shown: below 6" in out and "round-robin" in out and "block" in out
    found = json.loads((project / "found.json").read_text())
    assert found["winner"] is None and found["baseline"] == "plan"
    assert Counter(run["policy"] for run in found["runs"]) == {"plan": 2, "round-robin": 2}
    assert [run["policy"] for run in found["runs"][:2]] == [run["policy"] for run in found["runs"][:1:-1]]
    # In place, as it stands: each build is the whole one, nothing is put back; the first two are warm-up.
    assert (project / "made").read_text() == "again\n" * 6
    assert (project / "prepared").read_text() == "x\n" * 6
    assert all(run["seconds"] >= 0.1 for run in found["runs"]), "no result of an earlier run was taken"
    assert not (tmp_path / "XDG_STATE_HOME").exists(), "history and ledger are the user's own"
    assert (project / "kept" / "ledger.jsonl").read_text().count('"build_started"') == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policies", "plan"], "two policies"),
        (["--policies", "plan,plan"], "two policies"),
        (["--policies", "plan,nobody"], "nobody"),
        (["--policies", "plan,cpu", "--repeat", "0"], "--repeat"),
        (["--policies", "plan,cpu", "--json", "/nowhere/x"], "/nowhere/x"),
        (["--policies", "plan,cpu", "nothing"], "nothing"),
        (["--policies", "plan,cpu", "local-only"], "no action is remote"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(
    project: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "local-only").write_text("all:\n\ttrue\n")
    assert main(["bench", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_a_build_that_fails_ends_it_with_what_it_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "Rakefile").write_text((project / "Rakefile").read_text() + "\techo broken >&2; exit 3\n")
    assert main(["bench", "--policies", "plan,cpu", "--repeat", "2"]) == 1
    said = capsys.readouterr().err
    assert "with the policy plan ended with status 1" in said and "broken" in said


def test_a_policy_that_was_replaced_is_not_what_was_measured(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "bad.py").write_text(
        "class Bad:\n    def __init__(self, view): pass\n    def handle(self, event): 1 / 0\n"
    )
    assert main(["bench", "--policies", "plan,bad.py:Bad", "--repeat", "1"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_told_to_end_it_leaves_no_build_behind(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (project / "Rakefile").write_text((project / "Rakefile").read_text().replace("work 0.05", "work 30"))
    words = [sys.executable, "-m", "rakefarm", "bench", "--policies", "plan,cpu"]
    bench = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
        deadline = time.monotonic() + 30
        while not (found := children.read_text().split()):
            assert bench.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(30) == 143
        assert not Path(f"/proc/{found[0]}").exists()
        assert not list((tmp_path / "scratch").iterdir())
    finally:
        bench.kill()
        bench.wait()
