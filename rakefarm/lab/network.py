"""The wires between simulated clients and hosts: delays, what is dropped or late, and who is where."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rakefarm.lab.attempt import Attempt
from rakefarm.lab.draw import stream
from rakefarm.lab.host import SimulatedHost
from rakefarm.lab.scenario import Fault
from rakefarm.lab.timeline import Timeline

SILENCE_S = 7.0
"""How long a real client waits until it takes a server for lost that says nothing."""


class Network:
    """Hosts by name, and what is between them and the clients."""

    def __init__(
        self, timeline: Timeline, hosts: Mapping[str, SimulatedHost], faults: Sequence[Fault], seed: int
    ) -> None:
        self.timeline = timeline
        self.hosts = hosts
        self._seed = seed
        self._dropped = sum(fault.share for fault in faults if fault.kind == "dropped")
        self._late = [fault for fault in faults if fault.kind == "late"]
        self._faults = stream(seed, "messages")
        self._there: Counter[str] = Counter()
        self._left: dict[int, Attempt] = {}

    def chance(self, *words: object) -> random.Random:
        """The chance of one purpose."""
        return stream(self._seed, *words)

    def carry(self, host: str, arrived: Callable[[SimulatedHost], object], reliable: bool = False) -> bool:
        """A message to the host; what it does there is done unless the host is dead by then. False when it is
        dropped. What the kernel itself tells (that a link was closed) is `reliable`."""
        there = self.hosts[host]
        delay_s = there.spec.round_trip_s / 2 if reliable else self._delay_s(there)
        if delay_s is None:
            return False

        def arrive() -> None:
            if not there.dead:
                arrived(there)

        self.timeline.after(delay_s, arrive)
        return True

    def carry_back(self, host: str, arrived: Callable[[], object]) -> bool:
        """A message from the host. False when it is dropped."""
        delay_s = self._delay_s(self.hosts[host])
        if delay_s is None:
            return False
        self.timeline.after(delay_s, arrived)
        return True

    def _delay_s(self, there: SimulatedHost) -> float | None:
        delay_s = there.spec.round_trip_s / 2
        if self._dropped and self._faults.random() < self._dropped:
            return None
        for fault in self._late:
            if self._faults.random() < fault.share:
                delay_s += fault.by_s
        return delay_s

    # --- herding: who has been sent where -------------------------------------------------------------

    def enter(self, host: str) -> bool:
        """An action is awarded to the host; answers whether that was full while another had a free slot."""
        full = self._there[host] >= self.hosts[host].spec.slots
        herded = full and any(
            not other.dead and self._there[name] < other.spec.slots for name, other in self.hosts.items()
        )
        self._there[host] += 1
        return herded

    def left(self, attempt: Attempt) -> None:
        """It takes no slot there any more; told twice does no harm."""
        if id(attempt) not in self._left:
            self._left[id(attempt)] = attempt
            self._there[attempt.host] -= 1


class Exchange:
    """What is said over one link for one purpose: when a message of it is dropped, the client waits in vain, until it
    takes the host for lost."""

    def __init__(
        self,
        network: Network,
        host: str,
        patience_s: float,
        count: Callable[[], object],
        failed: Callable[[], object],
    ) -> None:
        self.host = host
        self.over = False
        self._network = network
        self._patience_s = min(patience_s, SILENCE_S)
        self._count = count
        self._failed = failed
        self._clean_up: Callable[[], object] = lambda: None

    def send(self, arrived: Callable[[SimulatedHost], object]) -> None:
        """To the host."""
        self._count()
        if not self._network.carry(self.host, arrived):
            self._give_up_later()

    def hang_up(self, arrived: Callable[[SimulatedHost], object]) -> None:
        """The link is closed, and the host does what it does then."""
        self._network.carry(self.host, arrived, reliable=True)

    def answer(self, arrived: Callable[[], object]) -> None:
        """Back to the client, unless it has left."""
        self._count()
        if not self._network.carry_back(self.host, lambda: None if self.over else arrived()):
            self._give_up_later()

    def on_failure(self, clean_up: Callable[[], object]) -> None:
        """What the host does when it sees that the link was cut."""
        self._clean_up = clean_up

    def cut(self) -> None:
        """The client has closed the link."""
        self.over = True
        self._clean_up()

    def _give_up_later(self) -> None:
        def give_up() -> None:
            if not self.over:
                self._failed()

        self._network.timeline.after(self._patience_s, give_up)
