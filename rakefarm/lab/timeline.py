"""The clock of a simulation: things to do, each at its time, the earliest first."""

import heapq
from collections.abc import Callable

from msgspec import Struct, field


class Appointment(Struct):
    """Something that is to be done, unless it is called off."""

    what: Callable[[], object]
    called_off: bool = False


class Timeline(Struct):
    """Virtual seconds from 0. What is due at one time is done in the order in which it was asked for."""

    now_s: float = 0.0
    done: int = 0
    """Events so far."""
    _due: list[tuple[float, int, Appointment]] = field(default_factory=list)
    _count: int = 0

    def at(self, time_s: float, what: Callable[[], object]) -> Appointment:
        """Have it done then, or now if that is past."""
        appointment = Appointment(what)
        self._count += 1
        heapq.heappush(self._due, (max(time_s, self.now_s), self._count, appointment))
        return appointment

    def after(self, seconds: float, what: Callable[[], object]) -> Appointment:
        """Have it done so much later."""
        return self.at(self.now_s + seconds, what)

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Until that is so; False when before that nothing was left to do, or the time was `limit_s`."""
        while not until():
            if not self._due or self._due[0][0] > limit_s:
                return False
            time_s, _, appointment = heapq.heappop(self._due)
            if appointment.called_off:
                continue
            self.now_s = time_s
            self.done += 1
            appointment.what()
        return True
