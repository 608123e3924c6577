"""PLAN.toml: what an experiment varies, and the runs that follow from it.

name = "stale load"
seeds = 30                       # the same worlds for every policy: common random numbers
baseline = "plan"                # what the others are compared with
policies = ["plan", "cpu", "mine.py:make"]

[scenario]                       # changes to the standard scenario that it is `like`
like = "base"
hosts = 12

[factors]                        # each value of each with each of the others, or side by side if design = "paired"
sample_s = [0.1, 1.0, 10.0]
"workload.actions" = [60]
"""

import hashlib
import itertools
import os
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from rakefarm.lab.draw import LabError, draw
from rakefarm.lab.scenario import STANDARD, Scenario

MOST_RUNS = 1_000_000


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """The file, as it stands. `first_seed` and `seeds` are numbers of worlds; `repetitions` only make sense on a real
    farm, where the same run ends otherwise each time."""

    policies: Annotated[tuple[str, ...], Meta(min_length=1)]
    name: str = "experiment"
    baseline: str = ""
    seeds: Annotated[int, Meta(ge=1, le=100_000)] = 30
    first_seed: Annotated[int, Meta(ge=0)] = 1
    repetitions: Annotated[int, Meta(ge=1, le=1000)] = 1
    design: Literal["full", "paired"] = "full"
    scenario: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, Annotated[list[Any], Meta(min_length=1)]] = field(default_factory=dict)


class Cell(Struct, frozen=True):
    """One combination of factors: its values by name, as text, and the scenario that has them."""

    factors: tuple[tuple[str, str], ...]
    scenario: Scenario


class RunSpec(Struct, frozen=True):
    """One run: its number, by which everything of it is found again."""

    number: int
    cell: Cell
    policy: str
    seed: int
    repetition: int
    mode: str


class Experiment(Struct, frozen=True):
    """A plan that can be run: its text, its digest, and its cells."""

    plan: Plan
    text: str
    digest: str
    cells: tuple[Cell, ...]

    def runs(self, modes: tuple[str, ...]) -> list[RunSpec]:
        """All runs, seeds outermost, so that what is there of an experiment is balanced at any time."""
        plan = self.plan
        seeds = range(plan.first_seed, plan.first_seed + plan.seeds)
        every = itertools.product(modes, seeds, range(plan.repetitions), self.cells, plan.policies)
        return [
            RunSpec(number, cell, policy, seed, repetition, mode)
            for number, (mode, seed, repetition, cell, policy) in enumerate(every, 1)
        ]


def read_plan(path: str) -> Experiment:
    """The experiment of that file. Raises LabError: one line, with the file and what is wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        plan = msgspec.convert(tomllib.loads(text), Plan)
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise LabError(f"{path}: {error}") from error
    if plan.baseline and plan.baseline not in plan.policies:
        raise LabError(f"{path}: baseline {plan.baseline!r} is not among the policies")
    if len(set(plan.policies)) < len(plan.policies):
        raise LabError(f"{path}: a policy is named twice")
    cells = tuple([_cell(path, plan, values) for values in _combinations(path, plan)])
    if len(cells) * len(plan.policies) * plan.seeds * plan.repetitions > MOST_RUNS:
        raise LabError(f"{path}: more than {MOST_RUNS} runs")
    for cell in cells:
        draw(cell.scenario, plan.first_seed)  # a file that it names is there, and can be read
    return Experiment(plan, text, hashlib.sha256(text.encode()).hexdigest(), cells)


def _combinations(path: str, plan: Plan) -> list[dict[str, Any]]:
    names, lists = list(plan.factors), list(plan.factors.values())
    if plan.design == "full":
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*lists)]
    if len({len(values) for values in lists}) > 1:
        raise LabError(f'{path}: design = "paired" needs factors with equally many values')
    return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)] or [{}]


def _cell(path: str, plan: Plan, values: Mapping[str, Any]) -> Cell:
    changes = {**plan.scenario, **values}
    like = changes.pop("like", "base")
    if not isinstance(like, str) or like not in STANDARD:
        raise LabError(f"{path}: scenario {like!r}: there are {', '.join(STANDARD)}")
    fields = msgspec.to_builtins(STANDARD[like])
    for name, value in changes.items():
        _change(path, fields, name, value)
    where = os.path.dirname(os.path.abspath(path))
    for part, key in (("workload", "trace"), ("foreign", "file")):
        if isinstance(fields[part], dict) and isinstance(fields[part].get(key), str) and fields[part][key]:
            fields[part][key] = os.path.join(where, fields[part][key])
    try:
        scenario = msgspec.convert(fields, Scenario)
    except msgspec.ValidationError as error:
        raise LabError(f"{path}: {error}") from error
    if scenario.fastest < scenario.slowest:
        raise LabError(f"{path}: fastest is below slowest")
    return Cell(tuple([(name, str(value)) for name, value in values.items()]), scenario)


def _change(path: str, fields: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    target: Any = fields
    for parent in parents:
        target = target.get(parent)
        if not isinstance(target, dict):
            raise LabError(f"{path}: {name}: no such part of a scenario")
    if isinstance(value, dict) and isinstance(target.get(last), dict):
        target[last] = {**target[last], **value}
    else:
        target[last] = value
