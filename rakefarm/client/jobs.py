"""An action as the market sees it: what it is, what it needs, what it is expected to take."""

import os
from collections.abc import Mapping

from msgspec import Struct

from rakefarm.client.inputs import Measured
from rakefarm.client.plan import PlannedAction
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
    job = Job(planned.number, expected_s, (kind, action.needs), action.repeatable, known=work_s > 0.0)
    return RemoteJob(planned, task, job, signature, measured.sizes)


def command_of(job: RemoteJob) -> bytes:
    """The command's bytes, as the Rakefile has them."""
    return os.fsencode(job.planned.action.command)
