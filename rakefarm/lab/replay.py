"""A recorded build decided again, offline, by the policies themselves; and how far the model is to be believed.

Modelled makespans are compared with each other, never with the recorded one: the recorded choices go through the model
as well. The work of an action comes from its own time, so their error is that of waiting, sharing and sending. What an
action would take on another host rests on the speeds of the two; where other builds of the same ledger ran the same
commands elsewhere, that is held against them. A difference within either error (of the makespan, and the median on
another host) shows nothing.
"""

import math
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from rakefarm.client.policies import find_policy
from rakefarm.lab.attempt import Attempt
from rakefarm.lab.measures import summary_of
from rakefarm.lab.recorded_build import RecordedAction, RecordedBuild
from rakefarm.lab.recorded_choices import RecordedChoices, choices_of
from rakefarm.lab.remodel import Model, remodel
from rakefarm.lab.world import Outcome, simulate
from rakefarm.market.bids import BIDS, DEFAULT
from rakefarm.market.history import signature_of

RECORDED = "the recorded choices"


class Errors(Struct, frozen=True):
    """Absolute errors as shares of what was realised, over so many actions."""

    actions: int
    median: float
    p95: float


class Replayed(Struct, frozen=True):
    """What a policy decides in the model: the host of each action, by its number in the build; and the makespan
    (seconds, None: not all of it was done), `ratio` to that of the recorded choices in the model; whether that is more
    than the model's errors."""

    policy: str
    hosts: dict[int, str]
    makespan_s: float | None
    ratio: float | None
    differing: int
    shown: bool


class Replay(Struct, frozen=True):
    """All that is said of a build; `moved` is None where no other build ran its commands elsewhere."""

    build: RecordedBuild
    model: Model
    modelled_s: float | None
    error: Errors
    moved: Errors | None
    policies: tuple[Replayed, ...]


def replay(build: RecordedBuild, others: Sequence[RecordedBuild], policies: Sequence[str], seed: int) -> Replay:
    """Decide it again; `others` are builds of the same ledger. Raises ConfigError, LabError or PolicyFailed."""
    model = remodel(build, seed)
    given = choices_of(build)
    again = simulate(model.drawn, RECORDED, lambda view: RecordedChoices(view, given), BIDS[DEFAULT])
    modelled_s = _makespan(again)
    moved = _moved(model, others)
    off = abs(math.log(modelled_s / build.makespan_s)) if modelled_s else math.inf
    doubt = max(off, moved.median if moved else 0.0)
    return Replay(
        build,
        model,
        modelled_s,
        _error(model, again),
        moved,
        tuple([_replayed(model, policy, modelled_s, doubt) for policy in policies]),
    )


def _makespan(outcome: Outcome) -> float | None:
    ended_s = max(outcome.ended_s)
    return ended_s if math.isfinite(ended_s) else None


def _won(outcome: Outcome) -> dict[int, Attempt]:
    return {each.action: each for each in outcome.attempts if each.outcome == "succeeded"}


def _replayed(model: Model, policy: str, modelled_s: float | None, doubt: float) -> Replayed:
    outcome = simulate(model.drawn, policy, find_policy(policy), BIDS[DEFAULT])
    won, makespan_s = _won(outcome), _makespan(outcome)
    hosts = {action.number: won[number].host for number, action in enumerate(model.actions, 1) if number in won}
    ratio = makespan_s / modelled_s if makespan_s and modelled_s else None
    return Replayed(
        policy=policy,
        hosts=hosts,
        makespan_s=makespan_s,
        ratio=ratio,
        differing=sum(hosts.get(action.number) != action.host for action in model.actions),
        shown=ratio is not None and abs(math.log(ratio)) > doubt,
    )


def _errors(pairs: Sequence[tuple[float, float]]) -> Errors | None:
    """Of predicted and realised."""
    values = [abs(predicted - realised) / realised for predicted, realised in pairs if realised > 0.0]
    return Errors(len(values), *summary_of(values)) if values else None


def _error(model: Model, again: Outcome) -> Errors:
    """What the model makes of the recorded choices."""
    won = _won(again)
    pairs = [
        (won[number].told_s - won[number].placed_s, action.elapsed_s)
        for number, action in enumerate(model.actions, 1)
        if number in won
    ]
    return _errors(pairs) or Errors(0, math.nan, math.nan)


def _moved(model: Model, others: Sequence[RecordedBuild]) -> Errors | None:
    """What an action ran here, predicted from the work that other builds' hosts had with the same command."""
    seen: dict[str, list[tuple[str, float]]] = {}
    for other in others:
        theirs = remodel(other, 1)
        for action, work_s in zip(theirs.actions, theirs.work_s, strict=True):
            seen.setdefault(signature_of(action.command), []).append((action.host, work_s))
    pairs = []
    for action, work_s in zip(model.actions, model.work_s, strict=True):
        for host, other_s in seen.get(signature_of(action.command), ()):
            if host != action.host:
                pairs.append((action.ran_s * other_s / work_s, action.ran_s))
    return _errors(pairs)


# --- for programs ---------------------------------------------------------------------------------------


def as_record(found: Replay) -> dict[str, object]:
    """One object."""
    build = found.build
    return {
        "schema": 1,
        "run": build.run_id,
        "at": build.at,
        "policy": build.policy,
        "recorded_s": build.makespan_s,
        "modelled_s": found.modelled_s,
        "error": msgspec.to_builtins(found.error),
        "moved_error": msgspec.to_builtins(found.moved),
        "policies": [
            {
                "policy": each.policy,
                "modelled_s": each.makespan_s,
                "ratio": each.ratio,
                "shown": each.shown,
                "differing": each.differing,
            }
            for each in found.policies
        ],
        "actions": [
            {
                "action": action.number,
                "command": action.command,
                "recorded": action.host,
                "took_s": action.elapsed_s,
                "work_s": work_s,
                "hosts": {each.policy: each.hosts.get(action.number) for each in found.policies},
            }
            for action, work_s in zip(found.model.actions, found.model.work_s, strict=True)
        ],
    }


def differing(found: Replay) -> list[RecordedAction]:
    """The actions for which any policy chooses another host than was recorded."""
    return [
        action
        for action in found.model.actions
        if any(each.hosts.get(action.number) != action.host for each in found.policies)
    ]
