"""What a command must hold to run: a slot, under make a token, and each licence that it needs. All of it or nothing.

A licence is counted like a slot, with a lock that the kernel gives back (see `slots`), so two commands never hold the
same one, whatever is killed. Whoever gives back a licence wakes those who wait for slots.

The slots of a server that runs for one build on its user's machine are not its own: the user's other builds share them
(see `client.places`), and what they hold, nobody here knows.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from msgspec import Struct

from rakefarm.jobserver import Tokens
from rakefarm.server.held_tokens import HeldTokens
from rakefarm.slots import OpenSlots, Slots
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
    """In the listener, before any worker starts. `shared`: the slots are in this fifo, and others have them, too."""

    def __init__(
        self, directory: str, slots: int, licenses: Mapping[str, int], shared: str = "", tokens: Tokens | None = None
    ) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.slots = Slots(shared or os.path.join(directory, "slots"), slots)
        self.tokens = HeldTokens(tokens or Tokens(), slots)
        self._shared = bool(shared)
        # Numbered directories: a licence's name is no file name.
        self._licenses = {
            name: Slots(os.path.join(directory, f"license-{number}"), count)
            for number, (name, count) in enumerate(licenses.items())
        }

    def open(self, worker: int = 0) -> "WorkerGrants":
        """In worker number `worker`: its own view."""
        licenses = {name: held.open() for name, held in self._licenses.items()}
        return WorkerGrants(self.slots.open(), self.tokens, licenses, worker, self._shared)


class WorkerGrants:
    """In a worker: take and give back grants, from any thread."""

    def __init__(
        self, slots: OpenSlots, tokens: HeldTokens, licenses: Mapping[str, OpenSlots], worker: int, shared: bool
    ) -> None:
        self._slots = slots
        self._tokens = tokens
        self._licenses = licenses
        self._worker = worker
        self._shared = shared
        self._lock = threading.Lock()  # of the tokens

    @property
    def event(self) -> int:
        """A descriptor that becomes readable when a slot or a licence may be free."""
        return self._slots.event

    def try_take(self, licenses: Sequence[str] = (), woken: bool = False) -> Grant | None:
        """A free slot with these licences, now yours, or None. `woken`: we come from waiting on `event`."""
        slot = self._slots.try_take(woken)
        if slot is None:
            return None
        if not self._tokens.try_take(slot, self._worker):
            self._slots.give_back(slot, wake=False)
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
        with self._lock:
            self._tokens.give_back(slot)
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

    # --- what others have -------------------------------------------------------------------------------

    @property
    def token_readers(self) -> tuple[int, ...]:
        """Descriptors to wait at when a token is all that is lacking; none when it isn't."""
        if not self._tokens.needed or self._tokens.count_free() or self._slots.count_taken() >= self._slots.count:
            return ()
        return self._tokens.readers

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for our slots whom the scoreboard does not know."""
        return self._shared and self._slots.others_wait

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While this lasts, they know that we wait."""
        if not self._shared:
            yield
            return
        with self._slots.waiting():
            yield

    def elsewhere(self, own: int) -> int:
        """How many slots can't be had although we hold only `own`: others hold them, or there is no token for them."""
        if not self._shared:
            return 0
        free = self._slots.count - self._slots.count_taken()
        if self._tokens.needed:
            free = min(free, self._tokens.count_free())
        return max(0, self._slots.count - own - free)

    def give_tokens_back(self) -> None:
        """This worker ends, whatever its threads are doing."""
        with self._lock:
            self._tokens.recover(self._worker)
