"""The design report says what its data says, and nothing else; its pictures and its walk are the data's, too."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "report"
sys.path.insert(0, str(ROOT / "benchmarks"))

from breakeven import table, wires  # noqa: E402  the path comes first
from breakeven.fit import fit, medians, predict  # noqa: E402
from breakeven.report import model_of, text_of, waited_for  # noqa: E402


def test_every_figure_in_the_text_comes_from_the_data() -> None:
    assert text_of(str(DATA)) == (ROOT / "docs" / "report.md").read_text(encoding="utf-8"), (
        "run python3 benchmarks/breakeven --from-data"
    )


ALLOWED = {
    "0.2 s": "the retransmission time-out that the datagrams use, a constant of the benchmark",
    "25 %": "from which on an error counts as large",
    "1,000": "the cable's rate in the experiment with buffers",
    "3 Gbit/s": "what the relay carries at the most",
    "0.5 ms": "the round trip of the rules' example",
    "100 kB": "sizes of the rules' example",
    "1 MB": "sizes of the rules' example",
    "200 kB": "inputs of the experiment with rates",
}


def test_no_measured_figure_is_typed_into_the_template() -> None:
    template = (DATA / "report.md.jinja").read_text(encoding="utf-8")
    text = re.sub(r"{{.*?}}|{%.*?%}|{#.*?#}", "", template, flags=re.DOTALL)
    found = {match[0] for match in re.finditer(r"\d[\d.,]*\s(?:ms|s|%|kB|MB|Mbit/s|Gbit/s|times)\b|\d[\d.,]* %", text)}
    assert found <= ALLOWED.keys(), found - ALLOWED.keys()


def test_the_coefficients_are_those_that_fit_the_data() -> None:
    middle = medians(table.read(str(DATA)))
    stored, fitted = (
        predict(middle, model_of(str(DATA))),
        predict(middle, fit(middle, waited_for(wires.read(str(DATA))))),
    )
    for one, other in zip(stored, fitted, strict=True):
        assert one.remote_s == pytest.approx(other.remote_s, rel=0.02)


def test_pictures_are_there_for_light_and_dark_pages() -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"report/[a-z-]+\.svg", text)
    assert pictures
    assert {f"report/{path.name}" for path in DATA.glob("*.svg")} == set(pictures)
