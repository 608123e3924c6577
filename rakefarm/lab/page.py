"""The page of an experiment: one file of HTML with plots, tables and the text of what was run; it needs no network."""

import os
from collections.abc import Mapping, Sequence

from rakefarm.client.board import safe_text
from rakefarm.lab.comparisons import Comparison, Row, cell_of
from rakefarm.lab.draw import LabError
from rakefarm.lab.measures import summary_of

SHOWN = ("ratio", "bound_ratio", "herd", "messages", "jain", "bid_error", "rank")
TITLES = {
    "ratios": "Makespan over the clairvoyant list schedule",
    "gantt": "Who was where when",
    "bids": "Bids against what they became",
    "herd": "Herding over time",
    "age": "Makespan against the age of what was known",
}


def summaries(rows: Sequence[Row], factors: Sequence[str]) -> list[dict[str, str]]:
    """A line for each mode, cell and policy: medians of the measures, and the 95th percentile of the ratio."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["mode"]), cell_of(row, factors), str(row["policy"])), []).append(row)
    lines = []
    for (mode, cell, policy), mine in groups.items():
        line = {"mode": mode, "cell": cell, "policy": policy, "runs": str(len(mine))}
        for name in SHOWN:
            values = [float(str(row[name])) for row in mine if row[name] is not None]
            line[name] = f"{summary_of(values)[0]:.3f}" if values else "unknown"
        line["p95"] = f"{summary_of([float(str(row['ratio'])) for row in mine])[1]:.3f}"
        line["lost"] = str(sum(int(str(row["lost"])) for row in mine))
        lines.append(line)
    return lines


def render(
    manifest: Mapping[str, object],
    lines: Sequence[Mapping[str, str]],
    comparisons: Sequence[Comparison],
    plots: Sequence[str],
    notes: Sequence[str],
    directory: str,
) -> str:
    """The page's text; `notes` are lines on how far runs on real servers are to be believed. Raises LabError when Jinja
    is missing, OSError when a plot is."""
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise LabError("the page needs Jinja, which is not installed: pip install 'rakefarm[lab]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.join(os.path.dirname(__file__), "page_files")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = []
    for name in plots:
        with open(os.path.join(directory, f"{name}.svg"), encoding="utf-8") as file:
            svg = file.read()
        drawing = Markup(svg[svg.index("<svg") :])  # nosec B704 # matplotlib has escaped what is in it
        figures.append((TITLES[name], drawing))
    return environment.get_template("experiment.html").render(
        name=safe_text(str(manifest["name"])),
        plan=str(manifest["plan"]),
        manifest=manifest,
        lines=lines,
        shown=SHOWN,
        comparisons=comparisons,
        figures=figures,
        notes=notes,
        emulated="farm" in str(manifest["modes"]),
    )
