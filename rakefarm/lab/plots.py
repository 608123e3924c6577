"""The plots of an experiment, as SVG and PNG that are the same bytes whenever they are drawn from the same rows."""

import io
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, StrMethodFormatter

from rakefarm.lab.comparisons import Row

STYLE: dict[Any, Any] = {"svg.hashsalt": "rakefarm", "svg.fonttype": "none", "font.size": 9}
SIZE_INCHES = (6.4, 3.6)
MOST_BARS = 3000
SLICES = 30
Draw = Callable[[Axes], None]


def draw_all(rows: Sequence[Row], actions: Sequence[Row], directory: str) -> list[str]:
    """Every plot; answers their names, without directory and ending. Raises OSError."""
    labels = _labels(rows)
    policy_of = {row["run"]: labels[_key(row)] for row in rows}
    plots: dict[str, Draw] = {
        "ratios": lambda axes: _ratios(axes, rows),
        "gantt": lambda axes: _gantt(axes, rows, actions),
        "bids": lambda axes: _bids(axes, actions, policy_of),
        "herd": lambda axes: _herd(axes, actions, policy_of),
        "age": lambda axes: _age(axes, rows),
    }
    for name, draw in plots.items():
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=SIZE_INCHES, layout="tight")
            axes = figure.subplots()
            draw(axes)
            if len(axes.get_legend_handles_labels()[1]) > 1:
                axes.legend(fontsize=7)
            for ending, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                data = io.BytesIO()
                figure.savefig(data, format=ending, dpi=110, metadata=metadata)
                _write(os.path.join(directory, f"{name}.{ending}"), data.getvalue())
    return list(plots)


def _write(path: str, data: bytes) -> None:
    beside = f"{path}-{os.getpid()}"
    with open(beside, "wb") as file:
        file.write(data)
    os.replace(beside, path)


def _key(row: Row) -> tuple[str, str]:
    return str(row["mode"]), str(row["policy"])


def _labels(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """What is drawn apart, by mode and policy, and how it is called; emulated hosts always are called so."""
    words = {"farm": " (emulated)", "sim": " (simulated)" if any(row["mode"] == "farm" for row in rows) else ""}
    return {key: key[1] + words[key[0]] for key in dict.fromkeys(map(_key, rows))}


def _plain(axis: Axis) -> None:
    """Numbers of a logarithmic axis as people write them."""
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))


def _number(value: object) -> float:
    return float(str(value)) if value is not None else math.nan


def _ratios(axes: Axes, rows: Sequence[Row]) -> None:
    for key, label in _labels(rows).items():
        values = sorted(_number(row["ratio"]) for row in rows if _key(row) == key)
        axes.step(values, np.arange(1, len(values) + 1) / len(values), where="post", label=label)
    axes.set(xlabel="makespan / clairvoyant list schedule", ylabel="share of runs", xscale="log", ylim=(0, 1))
    _plain(axes.xaxis)


def _gantt(axes: Axes, rows: Sequence[Row], actions: Sequence[Row]) -> None:
    """The first run: who was where when; each command on the lowest line of its host that was free."""
    first = rows[0]["run"]
    mine = [each for each in actions if each["run"] == first and _number(each["started_s"]) >= 0][:MOST_BARS]
    hosts = sorted({str(each["host"]) for each in mine})
    base, ticks = 0, []
    for host in hosts:
        lanes: list[float] = []
        there = [each for each in mine if each["host"] == host]
        for each in sorted(there, key=lambda each: _number(each["started_s"])):
            start, end = _number(each["started_s"]), _number(each["ended_s"])
            lane = next((number for number, free in enumerate(lanes) if free <= start), len(lanes))
            lanes[lane : lane + 1] = [end]
            axes.barh(base + lane, end - start, left=start, height=0.9, color=f"C{int(_number(each['client'])) % 10}")
        ticks.append(base + max(len(lanes) - 1, 0) / 2)
        base += len(lanes) + 1
    axes.set_yticks(ticks, hosts, fontsize=6)
    axes.set(xlabel=f"seconds, run {first}: {_labels(rows)[_key(rows[0])]}; a colour a client")


def _bids(axes: Axes, actions: Sequence[Row], policy_of: dict[object, str]) -> None:
    for policy in dict.fromkeys(policy_of.values()):
        mine = [each for each in actions if policy_of[each["run"]] == policy and each["outcome"] == "succeeded"]
        mine = mine[:: max(1, len(mine) // MOST_BARS)]
        bids = [max(_number(each["bid_s"]), 1e-3) for each in mine]
        took = [_number(each["told_s"]) - _number(each["placed_s"]) for each in mine]
        axes.scatter(bids, took, s=9, alpha=0.4, label=policy, linewidths=0)
    axes.set(xlabel="bid (s)", ylabel="realised (s)", xscale="log", yscale="log")
    _plain(axes.xaxis)
    _plain(axes.yaxis)
    axes.axline((1, 1), (10, 10), color="black", linewidth=0.5)


def _herd(axes: Axes, actions: Sequence[Row], policy_of: dict[object, str]) -> None:
    last = max((_number(each["placed_s"]) for each in actions), default=1.0) or 1.0
    edges = np.linspace(0, last, SLICES + 1)
    for policy in dict.fromkeys(policy_of.values()):
        mine = [each for each in actions if policy_of[each["run"]] == policy]
        placed = np.array([_number(each["placed_s"]) for each in mine])
        herded = np.array([bool(each["herded"]) for each in mine], dtype=float)
        every = np.histogram(placed, edges)[0]
        bad = np.histogram(placed, edges, weights=herded)[0]
        share = np.divide(bad, every, out=np.zeros(len(bad)), where=every > 0)
        axes.step(edges[:-1], share, where="post", label=policy)
    axes.set(xlabel="seconds since the start", ylabel="herded share of awards", ylim=(-0.02, 1))


def _age(axes: Axes, rows: Sequence[Row]) -> None:
    """Real clients don't tell how old what they knew was."""
    for key, label in _labels(rows).items():
        mine = [row for row in rows if _key(row) == key and row["mode"] == "sim"]
        ages = [_number(row["sample_age_s"]) for row in mine]
        if mine:
            axes.scatter(ages, [_number(row["ratio"]) for row in mine], s=9, label=label)
    axes.set(xlabel="mean age of the load that awards rested on (s)", ylabel="makespan / clairvoyant", yscale="log")
    _plain(axes.yaxis)
