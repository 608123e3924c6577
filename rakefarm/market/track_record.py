"""How fast hosts are, as this client has seen it: what they say of themselves, corrected by what came of it.

A host's own word is weighed as if it had been seen to do that for a moment. Against it stands all the work that ended
there, older work weighing less, and what runs there and should have ended: it has done its work at most once in the
time that it has taken so far. So a host that is ten times slower than it says is found out before the first result is
there, and one that has become faster is believed again after a few.

Predictions of work are seldom better than half as much again, and of jobs that began together those end first that
were predicted too long: a host would seem fast at first. So what runs and is not overdue counts as done at the host's
word as far as it has come, and a host that seems less than twice as fast as it says is taken at its word.
"""

from collections.abc import Iterable

from msgspec import Struct

WORD_WEIGHT_S = 0.1
"""A host's own word weighs as much as having seen it for so long."""
BELIEVED_FACTOR = 2.0
"""A host may seem faster than its word by so much, and still be taken at that."""
KEPT_SHARE = 0.85
"""What is kept of older work when a job ends."""
SHORTEST_S = 0.02
"""Below this the start of a process outweighs the work."""


class _Seen(Struct):
    work_s: float = 0.0
    seconds: float = 0.0


class TrackRecord:
    """Work done and seconds taken, by host. Work is in reference seconds at a whole core's rate."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def learn(self, host: str, work_s: float, seconds: float) -> None:
        """A job of so much work has succeeded there in so many seconds."""
        if work_s < SHORTEST_S or seconds < SHORTEST_S:
            return
        seen = self._seen.setdefault(host, _Seen())
        seen.work_s = KEPT_SHARE * seen.work_s + work_s
        seen.seconds = KEPT_SHARE * seen.seconds + seconds

    def speed(self, host: str, said: float, running: Iterable[tuple[float, float]] = ()) -> float:
        """Reference seconds of work that a core there does in a second; `said` is the host's own word, `running` the
        work of what runs there, and for how long it has (seconds). Above zero when `said` is."""
        seen = self._seen.get(host)
        work_s, seconds = (seen.work_s, seen.seconds) if seen is not None else (0.0, 0.0)
        on_time_s = 0.0
        for job_s, elapsed_s in running:
            if job_s >= SHORTEST_S and elapsed_s * said > job_s:
                work_s += job_s
                seconds += elapsed_s
            elif job_s >= SHORTEST_S:
                on_time_s += max(elapsed_s, 0.0)
        shown = (WORD_WEIGHT_S * said + work_s) / (WORD_WEIGHT_S + seconds)
        if shown < said:
            return shown
        seconds += on_time_s
        shown = (WORD_WEIGHT_S * said + work_s + on_time_s * said) / (WORD_WEIGHT_S + seconds)
        return shown if shown > said * BELIEVED_FACTOR else said
