"""The report from its template and the data: every measured figure in its text is looked up, none is typed."""

import json
import os
import statistics
from collections.abc import Iterable, Sequence

import jinja2
import msgspec
from breakeven import table, wires
from breakeven.figures import draw_all
from breakeven.fit import Prediction, fit, medians, predict
from breakeven.table import Row
from breakeven.wires import Figure

from rakefarm.market.break_even import Build, Client, Costs, Hosts, least_work_s

TEMPLATE, MODEL = "report.md.jinja", "model.json"
FAR_OFF = 0.25
LAPTOP, LAB_SLOTS, LAB_ROUND_TRIP_S = Client(4), 32, 5e-4
"""The rules' example: a laptop of four cores, a lab of 32 slots as fast, a switched network."""


def write_report(directory: str) -> None:
    """Figures beside the data, the text above it."""
    rows = table.read(directory)
    pairs = wires.read(directory)
    middle = medians(rows)
    costs = fit(middle, waited_for(pairs))
    with open(os.path.join(directory, MODEL), "wb") as model:
        model.write(msgspec.json.format(msgspec.json.encode(costs)) + b"\n")
    predictions = predict(middle, costs)
    draw_all(directory, rows, predictions, costs, pairs)
    with open(os.path.join(os.path.dirname(directory.rstrip("/")), "report.md"), "w", encoding="utf-8") as file:
        file.write(render(directory, rows, predictions, costs, pairs))


def text_of(directory: str) -> str:
    """The report's text as the data has it now, by the coefficients that were fitted when it was written: another
    release of the library would find others in the last digits."""
    rows = table.read(directory)
    return render(
        directory, rows, predict(medians(rows), model_of(directory)), model_of(directory), wires.read(directory)
    )


def model_of(directory: str) -> Costs:
    """The coefficients beside the data."""
    with open(os.path.join(directory, MODEL), "rb") as file:
        return msgspec.json.decode(file.read(), type=Costs)


def render(
    directory: str, rows: Sequence[Row], predictions: Sequence[Prediction], costs: Costs, pairs: Sequence[Figure]
) -> str:
    """The template with all figures filled in."""
    with open(os.path.join(directory, table.MACHINE), encoding="utf-8") as file:
        machine = json.load(file)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {
        "ms": _ms,
        "seconds": _seconds,
        "percent": _percent,
        "mbit": _mbit,
        "times": _times,
        "size": _size,
    }
    other = table.read(directory, table.EARLIER)
    earlier = {row.case: row for row in medians(other)}
    twice = [each for each in predictions if each.row.case in earlier]
    return environment.get_template(TEMPLATE).render(
        machine=machine,
        costs=costs,
        cases=predictions,
        rows=len(rows),
        rounds=max(row.round for row in rows) + 1,
        seen_error=_error(each for each in predictions if not each.held_back),
        held_error=_error(each for each in predictions if each.held_back),
        held=sum(each.held_back for each in predictions),
        right=sum(each.right for each in predictions),
        far_off=[each for each in predictions if abs(each.error) > FAR_OFF],
        best=max(twice, key=lambda each: _gain(each.row)),
        worst=min(twice, key=lambda each: _gain(each.row)),
        again={each.row.number: _gain(earlier[each.row.case]) for each in twice},
        again_rounds=max(row.round for row in other) + 1,
        spread=_spread(rows),
        distcc_ratio=statistics.median(
            each.row.remote_s / each.row.distcc_s for each in predictions if each.row.distcc_s
        ),
        least=_least(costs),
        question=lambda way, loss, at: _one(pairs, "question", way, loss=loss, setting=at),
        window=lambda round_trip_s, size: _one(pairs, "window", "tcp", round_trip_s=round_trip_s, setting=size),
        action=lambda way, round_trip_s: _one(pairs, "actions", way, round_trip_s=round_trip_s),
        slope=lambda way: _slope(pairs, way),
        window_times=sorted({each.round_trip_s for each in pairs if each.experiment == "window"}),
        window_sizes=sorted({each.setting for each in pairs if each.experiment == "window"}),
        action_times=sorted({each.round_trip_s for each in pairs if each.experiment == "actions"}),
        losses=sorted({each.loss for each in pairs if each.experiment == "question"}),
    )


def _gain(row: Row) -> float:
    return row.local_s / row.remote_s


def _error(predictions: Iterable[Prediction]) -> float:
    return statistics.median(abs(each.error) for each in predictions)


def _spread(rows: Sequence[Row]) -> dict[int, tuple[float, float]]:
    """The range of the rounds' gains, by case."""
    gains: dict[int, list[float]] = {}
    for row in rows:
        gains.setdefault(row.number, []).append(_gain(row))
    return {number: (min(each), max(each)) for number, each in gains.items()}


def _least(costs: Costs) -> dict[str, dict[str, float]]:
    """Seconds of work from which an action is worth sending, by rate and by what has to be sent."""
    found: dict[str, dict[str, float]] = {}
    for rate, name in ((1e7, "10 Mbit/s"), (1e8, "100 Mbit/s"), (1e9, "1 Gbit/s"), (1e10, "10 Gbit/s")):
        hosts = Hosts(LAB_SLOTS, 1.0, LAB_ROUND_TRIP_S, rate)
        found[name] = {
            label: least_work_s(Build(200, 0.0, size, 2e4), LAPTOP, hosts, costs)
            for label, size in (("warm", 0.0), ("100 kB cold", 1e5), ("1 MB cold", 1e6))
        }
    return found


def _one(figures: Sequence[Figure], experiment: str, way: str, **at: float) -> float:
    of_way = [each for each in figures if (each.experiment, each.way) == (experiment, way)]
    chosen = [each for each in of_way if all(getattr(each, name) == value for name, value in at.items())]
    assert len(chosen) == 1, f"{experiment} {way} {at}: {len(chosen)} figures"
    return chosen[0].value


def waited_for(figures: Sequence[Figure]) -> float:
    """Round trips that an action waits for where one runs at a time."""
    return _slope(figures, "1 at once")


def _slope(figures: Sequence[Figure], way: str) -> float:
    """Round trips that an action waits for: the slope of its time over the round trip, by least squares."""
    chosen = [each for each in figures if each.experiment == "actions" and each.way == way]
    return statistics.linear_regression([each.round_trip_s for each in chosen], [each.value for each in chosen]).slope


def _ms(seconds: float) -> str:
    if seconds < 1e-6:
        return "0 ms"
    return f"{seconds * 1e3:.3g} ms" if seconds * 1e3 < 1000 else _seconds(seconds)


def _seconds(seconds: float) -> str:
    if seconds == float("inf"):
        return "never"
    return f"{seconds:.3g} s" if seconds else "0.00"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _mbit(rate_bps: float) -> str:
    return f"{rate_bps / 1e6:.0f}" if rate_bps >= 1e7 else f"{rate_bps / 1e6:.1f}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}"


def _size(count: float) -> str:
    for factor, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count:g} bytes" if count else "the kernel's"
