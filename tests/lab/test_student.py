"""The whole path of a student: a policy in ten lines, its tests, a simulation, six servers, the default beside it, the page."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium_vocabulary import CHROMIUM, Browser, open_browser
from server_vocabulary import open_to_commands, processes_in

pytest.importorskip("matplotlib")

PLAN = """name = "mine against the default"
policies = ["plan", "mine.py:make"]
seeds = 2
[scenario]
like = "light"
hosts = 6
cores = [1, 2, 2, 3, 4]
sample_s = 0.1
foreign = {kind = "onoff", level = 0.5, on_s = 1.0, off_s = 1.0}
workload = {clients = 2, sets = 1, actions = 8, median_s = 0.3, input_bytes = 0}
"""
RAKEFARM = [sys.executable, "-m", "rakefarm"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the student works; state and configuration are there, too."""
    open_to_commands(tmp_path)
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    state = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("STATE", "CONFIG", "CACHE")}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("RAKEFARM_")}, **state}


def do(home: Path, words: list[str], seconds: float = 300.0) -> str:
    """Run it, which succeeds; answers what it says."""
    done = subprocess.run(words, cwd=home, env=environment(home), capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def lab(home: Path) -> Iterator[str]:
    """Six servers by one command; answers their addresses. They end clean."""
    words = [*RAKEFARM, "lab", "6", "--profile", "uneven,changing,distant"]
    server = subprocess.Popen(words, cwd=home, env=environment(home), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        lines = []
        while not lines or not lines[-1].startswith("rake-p"):
            lines.append(server.stdout.readline())
            assert lines[-1], lines
        assert "emulated" in lines[0] and len(lines) == 8
        assert all("emulated round trip" in line for line in lines[1:7])
        yield lines[-1].split()[-1]
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
        server.stdout.close()
    assert not processes_in(home)


@pytest.mark.slow
def test_the_path_of_a_student(home: Path, lab: str) -> None:
    do(home, [*RAKEFARM, "policy", "new", "mine"])
    do(home, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"])
    # Simulated, and on real servers with the same seeds; the other bytes are the page's.
    (home / "p.toml").write_text(PLAN)
    said = do(home, [*RAKEFARM, "experiment", "run", "p.toml", "--mode", "both", "--parquet"])
    assert "simulated against emulated hosts, 4 pairs: makespan off by" in said
    for mode in ("sim", "farm"):
        assert re.search(rf"^{mode}  all  mine.py:make / plan: .*\(only 2 pairs\)$", said, re.MULTILINE), said
    # On the six servers, as a build of one's own, and held against the default there.
    actions = "\n".join(f"\tremote-work 0.{1 + tag % 3} {tag}\n\t\trequires" for tag in range(12))
    (home / "Rakefile").write_text(f"HOSTS = {lab.replace(',', ' ')}\nall:\n{actions}\n")
    do(home, [sys.executable, "-m", "rakefarm.client", "--policy", "mine.py:make"])
    words = ["--policies", "plan,mine.py:make", "--repeat", "2", "--json", "bench.json"]
    said = do(home, [*RAKEFARM, "bench", *words])
    assert "no difference shown" in said
    assert len(json.loads((home / "bench.json").read_text())["runs"]) == 4
    said = do(home, [*RAKEFARM, "replay", "--policy", "plan"])
    assert "policy mine.py:make: 12 actions" in said and "plan, modelled" in said
    check_parquet(home / "p-results")
    if CHROMIUM is not None:
        (home / "profile").mkdir()
        with open_browser(home / "profile") as browser:
            look(browser, home / "p-results" / "index.html")


def check_parquet(results: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    runs = parquet.read_table(results / "runs.parquet")
    assert runs.num_rows == 8 and "makespan_s" in runs.column_names
    lines = (results / "actions.jsonl").read_text().count("\n")
    assert parquet.read_table(results / "actions.parquet").num_rows == lines


def look(browser: Browser, page: Path) -> None:
    """What a person would see: all plots, nothing beyond the edge, letters that stand out, by day and by night."""
    pictures = os.environ.get("LAB_PICTURES")
    for width in (1280, 390):
        for dark in (False, True):
            browser.show(page, width, dark=dark)
            assert browser.evaluate("document.querySelectorAll('figure svg').length") == 5
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            ink, paper = browser.evaluate(
                "(s => [s.color, s.backgroundColor].map(c => c.match(/\\d+/g).slice(0, 3).map(Number)"
                ".reduce((a, b) => a + b)))(getComputedStyle(document.body))"
            )
            assert (paper < 200 and ink > 500) if dark else (paper > 700 and ink < 200)
            assert "emulated" in browser.evaluate("document.querySelector('.note').textContent")
            assert "against emulated hosts, 4 pairs" in browser.evaluate("document.body.textContent")
            assert browser.evaluate("document.body.textContent.includes('mine.py:make')")
            if pictures:
                browser.picture(Path(pictures) / f"lab-{width}-{'dark' if dark else 'light'}.png")
    assert not browser.complaints
