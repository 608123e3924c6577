"""The report's pictures, each for light and for dark pages, the same bytes from the same data."""

import os
import statistics
from collections.abc import Sequence
from functools import partial

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from breakeven.fit import Prediction
from breakeven.table import Row
from breakeven.wires import Figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure as FigureOf

from rakefarm.market.break_even import Build, Client, Costs, Hosts, least_work_s

THEMES = {
    "light": {"text": "#1f2328", "grid": "#d0d7de", "colors": ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e"]},
    "dark": {"text": "#e6edf3", "grid": "#3d444d", "colors": ["#58a6ff", "#f0883e", "#3fb950", "#bc8cff", "#ff7b72"]},
}
FACTORS = {
    "client": ("the client's share of a processor", lambda row: row.share, False),
    "actions": ("actions", lambda row: row.actions, False),
    "input": ("input kB of each action (cold)", lambda row: row.padding_bytes / 1e3, True),
    "rate": ("cable, Mbit/s (200 kB cold inputs)", lambda row: row.asked_rate_bps / 1e6, True),
    "round trip": ("round trip, ms (small files)", lambda row: row.asked_round_trip_s * 1e3, True),
    "hosts": ("hosts of one slot (emulated: sleeps)", lambda row: row.hosts, False),
}


def draw_all(
    directory: str, rows: Sequence[Row], predictions: Sequence[Prediction], costs: Costs, wires: Sequence[Figure]
) -> None:
    """Every picture, in both themes."""
    for theme in THEMES:
        with matplotlib.rc_context(_settings(theme)):
            _factors(directory, theme, rows, predictions)
            for name, draw in (
                ("predicted", partial(_predicted, predictions=predictions, text=str(THEMES[theme]["text"]))),
                ("least-work", partial(_least_work, costs=costs)),
                ("windows", partial(_windows, wires=wires)),
                ("actions", partial(_actions, wires=wires)),
            ):
                figure, axes = plt.subplots(figsize=(6.4, 4.0))
                draw(axes)
                _save(figure, directory, f"{name}-{theme}")


def _settings(theme: str) -> dict[str, object]:
    look = THEMES[theme]
    return {
        "svg.hashsalt": "rakefarm",
        "svg.fonttype": "path",
        "font.size": 9,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": look["grid"],
        "grid.linewidth": 0.6,
        "axes.edgecolor": look["grid"],
        "axes.prop_cycle": matplotlib.cycler(color=look["colors"]),
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), look["text"]),
        "legend.frameon": False,
    }


def _save(figure: FigureOf, directory: str, name: str) -> None:
    figure.tight_layout()
    place = os.path.join(directory, f"{name}.svg")
    figure.savefig(place, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _factors(directory: str, theme: str, rows: Sequence[Row], predictions: Sequence[Prediction]) -> None:
    figure, all_axes = plt.subplots(2, 3, figsize=(9.0, 6.4))
    for axes, factor in zip(all_axes.flat, FACTORS, strict=True):
        _factor(axes, factor, rows, predictions, theme)
    _save(figure, directory, f"factors-{theme}")


def _factor(axes: Axes, factor: str, rows: Sequence[Row], predictions: Sequence[Prediction], theme: str) -> None:
    """How many times faster the farm was, by one factor: median, range of the rounds, and the model's line."""
    label, place, logarithmic = FACTORS[factor]
    colors = THEMES[theme]["colors"]
    chosen = [each for each in predictions if _is_of(each.row, factor)]
    sources = sorted({(each.row.source, each.row.work_s if each.row.emulated else 0.0) for each in chosen})
    for color, (source, sleep_s) in zip(colors, sources, strict=False):
        mine = sorted(
            (each for each in chosen if each.row.source == source and (not sleep_s or each.row.work_s == sleep_s)),
            key=lambda each: place(each.row),
        )
        ratios = [[row.local_s / row.remote_s for row in rows if row.number == each.row.number] for each in mine]
        middle = [statistics.median(each) for each in ratios]
        below = [at - min(each) for at, each in zip(middle, ratios, strict=True)]
        above = [max(each) - at for at, each in zip(middle, ratios, strict=True)]
        x = [place(each.row) for each in mine]
        name = f"{sleep_s:.2g} s of sleep" if sleep_s else source
        axes.errorbar(x, middle, [below, above], fmt="o", color=color, capsize=2, markersize=3.5, label=name)
        axes.plot(x, [each.local_s / each.remote_s for each in mine], color=color, linewidth=1)
    axes.axhline(1.0, color=THEMES[theme]["text"], linewidth=0.8, linestyle="--")
    if logarithmic:
        axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    if logarithmic or factor == "hosts":
        axes.set_xticks(sorted({place(each.row) for each in chosen}), minor=False)
        axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter("{x:g}")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.5), max(high, 2.0))
    axes.set_xlabel(label)
    axes.set_ylabel("times faster on the farm")
    axes.legend(fontsize=7)


def _is_of(row: Row, factor: str) -> bool:
    if factor == "input":
        return row.factor == "input" and row.cold
    if factor == "client":
        return row.factor == "client" or (row.factor == "work" and row.source == "small")
    return row.factor == factor


def _predicted(axes: Axes, predictions: Sequence[Prediction], text: str) -> None:
    for back, label in ((False, "fitted to"), (True, "held back")):
        mine = [each for each in predictions if each.held_back is back]
        axes.plot(
            [each.row.remote_s for each in mine], [each.remote_s for each in mine], "o", markersize=4, label=label
        )
    ends = [min(each.row.remote_s for each in predictions), max(each.row.remote_s for each in predictions)]
    axes.plot(ends, ends, color=text, linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("measured on the farm, s")
    axes.set_ylabel("predicted, s")
    axes.legend()


def _least_work(axes: Axes, costs: Costs) -> None:
    """The break-even itself: by rate, for a laptop of four cores and a lab of 32 slots."""
    rates = [10 ** (7 + index / 8) for index in range(25)]
    lab, laptop = 32, Client(4)
    for size, name in ((0.0, "warm"), (1e5, "100 kB cold"), (1e6, "1 MB cold")):
        least = [least_work_s(Build(200, 0.0, size, 2e4), laptop, Hosts(lab, 1.0, 5e-4, rate), costs) for rate in rates]
        axes.plot([rate / 1e6 for rate in rates], [value * 1e3 for value in least], label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rate of the cable, Mbit/s")
    axes.set_ylabel("least work of an action, ms")
    axes.legend()


def _windows(axes: Axes, wires: Sequence[Figure]) -> None:
    chosen = [each for each in wires if each.experiment == "window"]
    for round_trip_s in sorted({each.round_trip_s for each in chosen}):
        mine = [each for each in chosen if each.round_trip_s == round_trip_s and each.setting]
        axes.plot(
            [each.setting / 1024 for each in mine],
            [each.value / 1e6 for each in mine],
            "o-",
            markersize=3.5,
            label=f"{round_trip_s * 1e3:g} ms",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("send and receive buffer, KiB")
    axes.set_ylabel("Mbit/s of 1,000 (relay)")
    axes.legend(title="round trip")


def _actions(axes: Axes, wires: Sequence[Figure]) -> None:
    chosen = [each for each in wires if each.experiment == "actions"]
    for way in sorted({each.way for each in chosen}):
        mine = sorted((each for each in chosen if each.way == way), key=lambda each: each.round_trip_s)
        x = [each.round_trip_s * 1e3 for each in mine]
        axes.plot(x, [each.value * 1e3 for each in mine], "o-", markersize=3.5, label=way)
    axes.set_xlabel("round trip, ms (relay)")
    axes.set_ylabel("an action that does nothing, ms")
    axes.legend()
