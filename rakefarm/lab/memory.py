"""What a simulated client knows, and learns, as a real one does: times of former builds, wires, what it has sent."""

from msgspec import Struct

from rakefarm.lab.draw import ActionSpec, ClientSpec
from rakefarm.market import bid as pricing
from rakefarm.market import policy as market
from rakefarm.market.bandwidth import START_BANDWIDTH, learn_bandwidth, transfer_seconds
from rakefarm.market.history import History
from rakefarm.market.kind import OTHER as KIND

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0


class Described(Struct, frozen=True):
    """An action, as the policy sees it, and as hosts are told of it."""

    action: ActionSpec
    job: market.Job
    asked: pricing.Job


class Wire(Struct):
    """What is known of the way to a host: bytes a second, and for how long it is left out when it fails again,
    and what actions there take besides their commands."""

    bandwidth: float = START_BANDWIDTH
    pause_s: float = FIRST_PAUSE_S
    overhead_s: float = 0.0


class Memory:
    """Of one client. `knows_all`: the true work of each action, before it has run."""

    def __init__(self, spec: ClientSpec, hosts: list[str], knows_all: bool, repeatable: bool) -> None:
        self._history = History(spec.history)
        self._knows_all = knows_all
        self._repeatable = repeatable
        self._wires = {name: Wire() for name in hosts}
        self._sent: set[tuple[str, int]] = set()
        self._ages: dict[str, tuple[float, float]] = {}
        self._described = 0

    def describe(self, action: ActionSpec) -> Described:
        """An action of the next set, by what is known now."""
        self._described += 1
        seen = self._history.predict(action.signature, KIND, action.input_bytes)
        if self._knows_all:
            sure_s = expected_s = action.work_s
        else:
            sure_s = seen.work_s if seen and seen.sure else 0.0
            expected_s = seen.work_s if seen else pricing.Coefficients().work[KIND]
        job = market.Job(self._described, expected_s, KIND, (), self._repeatable, known=sure_s > 0.0)
        return Described(action, job, pricing.Job(KIND, (), action.input_bytes, sure_s))

    def transfer_s(self, described: Described, host: str) -> float:
        """Seconds that sending its input would take, by the bandwidth that has been seen."""
        return transfer_seconds(self.lacking_bytes(described, host), self._wires[host].bandwidth)

    def lacking_bytes(self, described: Described, host: str) -> int:
        """How much of its input the host does not have."""
        return 0 if (host, described.job.number) in self._sent else described.action.input_bytes

    def learn(self, described: Described, host: str, sent_bytes: int, sent_s: float, counted_s: float) -> None:
        """It has succeeded there, after so many bytes were sent in so many seconds; `counted_s` is its work."""
        self._sent.add((host, described.job.number))
        wire = self._wires[host]
        wire.bandwidth = learn_bandwidth(wire.bandwidth, sent_bytes, sent_s)
        action = described.action
        self._history.learn(action.signature, KIND, action.input_bytes, counted_s, 0)

    def note_overhead(self, host: str, seconds: float) -> None:
        """What one action there took besides its command."""
        wire = self._wires[host]
        wire.overhead_s = seconds if not wire.overhead_s else wire.overhead_s + 0.2 * (seconds - wire.overhead_s)

    def overhead_s(self, host: str) -> float:
        """Seconds that actions there have taken besides their commands, on average."""
        return self._wires[host].overhead_s

    def pause_s(self, host: str) -> float:
        """For how long a host is left out that has failed: longer each time."""
        wire = self._wires[host]
        pause_s, wire.pause_s = wire.pause_s, min(wire.pause_s * 2, LONGEST_PAUSE_S)
        return pause_s

    def note_age(self, host: str, sample_age_s: float, now: float) -> None:
        """The host has told of its load, as sampled so long ago."""
        self._ages[host] = sample_age_s, now

    def age_s(self, host: str, now: float) -> float:
        """How old the newest load is that is known of the host; 0 when nothing was told."""
        age_s, read_s = self._ages.get(host, (0.0, now))
        return age_s + now - read_s
