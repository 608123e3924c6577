"""The plan of a build, as bookkeeping: which actions there are, which may start, how each ended. Pure."""

from collections.abc import Iterator
from enum import Enum

from msgspec import Struct

from rakefarm.client.rakefile_model import Action, Rakefile


class Outcome(Enum):
    """How an action ended; the values are the words of events."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # it ran and failed, or its inputs or outputs could not be used here
    NOT_RUN = "not_run"  # the farm could not run it


class PlannedAction(Struct, frozen=True):
    """An action with its number in the build (from 1, in file order) and the set it belongs to."""

    number: int
    set_name: str
    action: Action


class PlannedSet(Struct, frozen=True):
    """A set with its place in the file, from 0."""

    index: int
    name: str
    actions: tuple[PlannedAction, ...]


class Plan:
    """Sets in order; the next one starts only when all of this one succeeded, or with `keep_going` in any case.

    Invariant: succeeded + failed + not_run + stopped + not_started equals `total` at the end.
    """

    def __init__(self, rakefile: Rakefile, keep_going: bool = False) -> None:
        self._keep_going = keep_going
        self.sets = tuple(_number(rakefile))
        self.total = sum(len(planned.actions) for planned in self.sets)
        self._outcomes: dict[int, Outcome] = {}
        self._running: set[int] = set()

    def sets_to_run(self) -> Iterator[PlannedSet]:
        """Each set, when it may start: ask for the next one when every action of the last has `finished`."""
        for planned in self.sets:
            if self._outcomes and not self._keep_going and not self.all_succeeded:
                return
            yield planned
            assert all(action.number in self._outcomes for action in planned.actions)

    def started(self, number: int) -> None:
        """Note that an action has been begun."""
        self._running.add(number)

    def taken_back(self, number: int) -> None:
        """Note that it was lost, and waits again."""
        self._running.discard(number)

    def finished(self, number: int, outcome: Outcome) -> None:
        """Note how an action ended; each ends once."""
        assert number not in self._outcomes
        self._outcomes[number] = outcome
        self._running.discard(number)

    def count(self, outcome: Outcome) -> int:
        """How many ended so."""
        return sum(1 for ended in self._outcomes.values() if ended is outcome)

    @property
    def all_succeeded(self) -> bool:
        """Whether nothing that ended failed."""
        return all(outcome is Outcome.SUCCEEDED for outcome in self._outcomes.values())

    @property
    def stopped(self) -> int:
        """Actions that were begun and never came to an end of their own."""
        return len(self._running)

    @property
    def not_started(self) -> int:
        """Actions that were never begun."""
        return self.total - len(self._outcomes) - len(self._running)


def _number(rakefile: Rakefile) -> Iterator[PlannedSet]:
    number = 0
    for index, action_set in enumerate(rakefile.sets):
        planned = []
        for action in action_set.actions:
            number += 1
            planned.append(PlannedAction(number, action_set.name, action))
        yield PlannedSet(index, action_set.name, tuple(planned))
