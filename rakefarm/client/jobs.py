"""An action as the market sees it: what it is, what it needs, what it is expected to take."""

import os
from collections.abc import Mapping

from msgspec import Struct

from rakefarm.client.inputs import Measured
from rakefarm.client.plan import Plan, PlannedAction
from rakefarm.market.bid import Coefficients
from rakefarm.market.history import History, signature_of
from rakefarm.market.kind import kind_of
from rakefarm.market.policy import Job
from rakefarm.wire.messages import Need, Task

DEFAULT_WORK_S: Mapping[str, float] = Coefficients().work
"""What a command is expected to take of which nothing is known, by kind (reference seconds)."""


class RemoteJob(Struct, frozen=True):
    """A remote action of this set: what runs, what hosts are told of it, and what the policy is told."""

    planned: PlannedAction
    task: Task
    market: Job
    signature: str
    sizes: tuple[tuple[str, int], ...]

    @property
    def number(self) -> int:
        """The action's number in the build."""
        return self.planned.number


def describe(planned: PlannedAction, measured: Measured, history: History) -> RemoteJob:
    """The job of an action whose inputs are there."""
    action = planned.action
    kind, signature, input_bytes = kind_of(action.command), signature_of(action.command), measured.total_bytes
    seen = history.predict(signature, kind, input_bytes)
    # What was never seen is predicted for our own planning only: a host should not learn its speed from a guess.
    work_s = seen.work_s if seen and seen.sure else 0.0
    task = Task(
        kind,
        tuple([Need(key, value) for key, value in action.needs]),
        input_bytes,
        work_s,
        seen.memory_bytes if seen else 0,
    )
    expected_s = seen.work_s if seen else DEFAULT_WORK_S[kind]
    job = Job(
        planned.number, expected_s, (kind, action.needs), action.needs, repeatable=action.repeatable, known=work_s > 0.0
    )
    return RemoteJob(planned, task, job, signature, measured.sizes)


class Expectations(Struct, frozen=True):
    """What each action is expected to take before it is looked at, by number, and all together (reference seconds);
    empty and None when most were never seen."""

    seconds: Mapping[int, float]
    total_s: float | None


def expect(plan: Plan, history: History) -> Expectations:
    """What earlier builds tell of this one, for an estimate of its end."""
    seconds: dict[int, float] = {}
    sure = 0
    for planned_set in plan.sets:
        for planned in planned_set.actions:
            command = planned.action.command
            kind = kind_of(command)
            seen = history.predict(signature_of(command), kind, 0)
            sure += bool(seen and seen.sure)
            seconds[planned.number] = seen.work_s if seen else DEFAULT_WORK_S[kind]
    if 2 * sure < len(seconds) or not seconds:
        return Expectations({}, None)
    return Expectations(seconds, sum(seconds.values()))


def command_of(job: RemoteJob) -> bytes:
    """The command's bytes, as the Rakefile has them."""
    return os.fsencode(job.planned.action.command)
