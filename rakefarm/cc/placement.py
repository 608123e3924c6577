"""Which host gets the next compile: the one where it would end first, by the price curves and what we have there.

A call comes when make starts it, and nobody knows of the next: so this is no policy over a set of actions, as
`rake-p` has, but one decision at a time. Each host takes as many of ours as it has slots, and one more, whose inputs
arrive while the others run; what exceeds the farm waits here, first come, first served.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Sequence

from msgspec import Struct, field

from rakefarm.client.farm import Farm, Member
from rakefarm.market.curve import Curve, rate

AHEAD = 1
"""So many more than its slots are sent to a host."""
ALIKE = 1.1
"""Hosts where a compile ends this much later are as good as the best one."""
LASTING_S = 60.0
"""How long a host is not asked again for what it lacks: a compiler, say, may be installed meanwhile."""
LOOK_AGAIN_S = 10.0
"""How often a host that has never answered is tried again."""
LOOK_EACH_S = 3.0
"""At most so often any that had failed: to connect may take as long."""
POLL_S = 0.5


class Place(Struct):
    """One host: what we have there, its last curve, and how many of others it had then."""

    member: Member
    in_flight: int = 0
    curve: Curve | None = None
    others: int = 0
    looked_at: float = field(default_factory=time.monotonic)
    lacks: dict[object, float] = field(default_factory=dict)  # what, until when (monotonic seconds)

    @property
    def slots(self) -> int:
        """Commands of ours that it can run at once."""
        return min(self.member.slots, self.member.host.slots or self.member.slots)

    def finish_s(self, work_s: float) -> float:
        """Seconds until a compile of this much work (reference seconds) that is sent now would have ended."""
        ahead = self.in_flight + self.others
        curve = self.curve
        if curve is None:
            speed, cores, busy = 1.0, max(1, self.member.cores), 0.0
        else:
            speed, cores, busy = curve.speed, curve.cores, curve.busy
        run_s = work_s / rate(speed, cores, busy, min(ahead, self.slots) + 1)
        return run_s * (1.0 + max(0, ahead + 1 - self.slots) / max(1, self.slots))


class Placement:
    """Decides for one farm. For any thread."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._places = [Place(member) for member in farm.members]
        self._changed = threading.Condition()
        self._queue: list[object] = []
        farm.listener = lambda _: self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing of ours is on any host, or waits for one."""
        return not self._queue and not any(place.in_flight for place in self._places)

    @property
    def room(self) -> int:
        """How many compiles all hosts that answer take at once."""
        return sum(place.slots + AHEAD for place in self._places if place.member.ready and not place.member.problem)

    def acquire(
        self, lacking: object, work_s: float, excluded: Collection[str], gone: Callable[[], bool], name: bytes = b""
    ) -> Place | None:
        """The host for a compile, which counts there from now on; None when no host can be used, or `gone` says that
        nobody wants it any more. `lacking` names what a host must not be known to lack. Of hosts that are about as good
        the compile's own `name` decides: so the same one comes to the same host, which may have its result."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while not gone():
                    usable = self._usable(lacking, excluded)
                    if not usable:
                        return None
                    free = [place for place in usable if place.in_flight < place.slots + AHEAD]
                    if free and self._queue[0] is ticket:
                        best = _choose(free, work_s, name)
                        best.in_flight += 1
                        return best
                    self._changed.wait(POLL_S)
                return None
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def usable(self, lacking: object) -> list[Place]:
        """The hosts that a compile could be sent to now, which are not known to lack that."""
        with self._changed:
            return self._usable(lacking, ())

    def enter(self, place: Place) -> None:
        """A call goes there out of turn, since it takes no slot."""
        with self._changed:
            place.in_flight += 1

    def _usable(self, lacking: object, excluded: Collection[str]) -> list[Place]:
        now = time.monotonic()
        self._look_again(now)
        return [
            place
            for place in self._places
            if place.member.ready
            and not place.member.problem
            and place.member.name not in excluded
            and place.lacks.get(lacking, 0.0) <= now
        ]

    def _look_again(self, now: float) -> None:
        """Try hosts that had failed once their pause is over, aside: no call waits for them."""
        for place in self._places:
            member = place.member
            due = member.asked_again_at if member.ready else place.looked_at + LOOK_AGAIN_S
            if (member.problem or not member.ready) and max(due, place.looked_at + LOOK_EACH_S) <= now:
                place.looked_at = now
                self._farm.try_again(member)

    def release(self, place: Place, curve: Curve | None) -> None:
        """A compile has ended there, one way or the other."""
        with self._changed:
            place.in_flight -= 1
            if curve is not None:
                place.curve = curve
                place.others = max(0, curve.running - place.in_flight)
            self._changed.notify_all()

    def lacks(self, place: Place, what: object) -> bool:
        """Whether the host is known to lack it."""
        with self._changed:
            return place.lacks.get(what, 0.0) > time.monotonic()

    def note_lacking(self, place: Place, what: object) -> None:
        """The host does not have what a compile needs."""
        with self._changed:
            place.lacks[what] = time.monotonic() + LASTING_S
            self._changed.notify_all()


def _choose(free: Sequence[Place], work_s: float, name: bytes) -> Place:
    """The host where it ends first, or the one of those ALIKE that the name is drawn to (rendezvous hashing)."""
    ends = [(place.finish_s(work_s), place) for place in free]
    soonest = min([end for end, _ in ends])
    alike = [place for end, place in ends if end <= soonest * ALIKE]
    if len(alike) == 1:
        return alike[0]
    return max(alike, key=lambda place: hashlib.sha256(name + place.member.name.encode()).digest())
