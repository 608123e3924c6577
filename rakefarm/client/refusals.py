"""Who would not run what, and why: whether an action may still find a host."""

from collections.abc import Collection, Mapping
from enum import Enum

from rakefarm.codes import brief

PASSING_REASONS = frozenset(
    {"memory", "disk", "draining", "input_lost", "executor", "sandbox", "full", "license_in_use"}
)
"""Reasons to decline that may be over in a moment, unlike a tool that isn't there."""


class Verdict(Enum):
    """What the refusals so far mean for a task."""

    OPEN = "some host has bid, or has not been heard"
    LATER = "every host has refused or is gone, and one of them perhaps only for the moment"
    HOPELESS = "no host will run it"


class Refusals:
    """Of one set of actions, by task and host."""

    def __init__(self) -> None:
        self._lasting: dict[object, dict[str, str]] = {}
        self._passing: dict[object, dict[str, str]] = {}
        self._rounds: dict[object, int] = {}

    def note(self, task: object, host: str, reason: str, lasting: bool) -> None:
        """The host has declined, for good or for the moment."""
        kept = self._lasting if lasting else self._passing
        kept.setdefault(task, {})[host] = reason

    def forget(self, task: object, host: str) -> None:
        """The host has bid after all."""
        self._passing.get(task, {}).pop(host, None)
        self._lasting.get(task, {}).pop(host, None)

    def forget_passing(self, task: object) -> Collection[str]:
        """The hosts that declined for the moment, which are to be asked again."""
        return self._passing.pop(task, {})

    def rounds(self, task: object) -> int:
        """How often every host has refused."""
        return self._rounds.get(task, 0)

    def verdict(self, task: object, hosts: Collection[str], attempts: int, may_return: bool = False) -> Verdict:
        """What it means that these `hosts` are left; each LATER counts as one of `attempts`. `may_return`: of the hosts
        that are not left one has been there, and may be again in a moment."""
        lasting, passing = self._lasting.get(task, {}), self._passing.get(task, {})
        if set(hosts) - lasting.keys() - passing.keys():
            return Verdict.OPEN
        self._rounds[task] = self.rounds(task) + 1
        if (passing.keys() & set(hosts) or may_return) and self._rounds[task] < attempts:
            return Verdict.LATER
        return Verdict.HOPELESS

    def explain(self, task: object, problems: Mapping[str, str]) -> str:
        """Every host and why not, for a person; `problems` are those of hosts that can't be asked, told before."""
        gone = {host: brief(problem) for host, problem in problems.items()}
        reasons = {**gone, **self._lasting.get(task, {}), **self._passing.get(task, {})}
        return "; ".join(f"{host}: {reason}" for host, reason in reasons.items()) or "there are no hosts"
