"""What a command must hold to run: a slot, and each licence that it needs. All of it or nothing.

A licence is counted like a slot, with a lock that the kernel gives back (see `slots`), so two commands never hold the
same one, whatever is killed. Whoever gives back a licence wakes those who wait for slots.
"""

import os
from collections.abc import Mapping, Sequence

from msgspec import Struct

from rakefarm.server.slots import Slots, WorkerSlots
from rakefarm.wire.messages import Task


class Grant(Struct, frozen=True):
    """A slot's number and the licences held with it, as name and number."""

    slot: int
    licenses: tuple[tuple[str, int], ...]


class Lease(Struct, frozen=True):
    """A grant that is held for a client for a moment: under which number, and the task that it was judged for."""

    number: int
    grant: Grant
    task: Task

    def covers(self, task: Task) -> bool:
        """Whether the task asks for nothing that was not judged when the lease was given."""
        judged = self.task
        return (
            task.needs == judged.needs
            and task.memory_bytes <= judged.memory_bytes
            and task.input_bytes <= judged.input_bytes
        )


class Grants:
    """In the listener, before any worker starts."""

    def __init__(self, directory: str, slots: int, licenses: Mapping[str, int]) -> None:
        self.slots = Slots(os.path.join(directory, "slots"), slots)
        # Numbered directories: a licence's name is no file name.
        self._licenses = {
            name: Slots(os.path.join(directory, f"license-{number}"), count)
            for number, (name, count) in enumerate(licenses.items())
        }

    def open(self) -> "WorkerGrants":
        """In a worker: its own view."""
        return WorkerGrants(self.slots.open(), {name: held.open() for name, held in self._licenses.items()})


class WorkerGrants:
    """In a worker: take and give back grants, from any thread."""

    def __init__(self, slots: WorkerSlots, licenses: Mapping[str, WorkerSlots]) -> None:
        self._slots = slots
        self._licenses = licenses

    @property
    def event(self) -> int:
        """A descriptor that becomes readable when a slot or a licence may be free."""
        return self._slots.event

    def try_take(self, licenses: Sequence[str] = (), woken: bool = False) -> Grant | None:
        """A free slot with these licences, now yours, or None. `woken`: we come from waiting on `event`."""
        slot = self._slots.try_take(woken)
        if slot is None:
            return None
        held: list[tuple[str, int]] = []
        for name in licenses:
            number = self._licenses[name].try_take() if name in self._licenses else None
            if number is None:
                self._give_back(slot, held, wake=False)
                return None
            held.append((name, number))
        return Grant(slot, tuple(held))

    def give_back(self, grant: Grant) -> None:
        """End the holding of a grant."""
        self._give_back(grant.slot, grant.licenses, wake=True)

    def _give_back(self, slot: int, licenses: Sequence[tuple[str, int]], wake: bool) -> None:
        for name, number in licenses:
            self._licenses[name].give_back(number)
        self._slots.give_back(slot, wake)

    def lacking(self, licenses: Sequence[str]) -> str:
        """The first of these licences that others hold all of at this moment; empty when each can be had."""
        return next((name for name in licenses if name in self._licenses and self._is_in_use(name)), "")

    def _is_in_use(self, name: str) -> bool:
        number = self._licenses[name].try_take()
        if number is None:
            return True
        self._licenses[name].give_back(number, wake=False)
        return False
