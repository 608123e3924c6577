"""What a policy knows of a host, from what it has said and from what the policy has done there since."""

from collections import Counter

from msgspec import Struct, field

from rakefarm.market.curve import Curve, rate
from rakefarm.market.policy import Job, Wait

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
ROOM_PER_AWARD = 8
"""With so many free slots for each award one may be made without a place in the queue."""
FRESH_S = 0.05
"""As long as the host has spoken no longer ago (seconds)."""


class Pause(Struct):
    """Until when something can't be had there, and for how long the next time."""

    until_s: float = 0.0
    next_s: float = FIRST_PAUSE_S

    def begin(self, now: float) -> None:
        """Once more."""
        self.until_s = now + self.next_s
        self.next_s = min(self.next_s * 2, LONGEST_PAUSE_S)


class KnownHost(Struct):
    """A host: its curve, when we got it, and what we have done there since. Times are seconds of the view's clock."""

    name: str
    slots: int
    curve: Curve | None = None
    read_at: float = 0.0
    free_slots: int = 0  # that the curve tells of
    said: float = 0.0  # its speed, by its own word
    taken: int = 0  # slots that we have awarded since the curve was made
    ours: int = 0  # actions of ours that are there
    waiting: Counter[object] = field(default_factory=Counter)  # how often we stand in its queue, by needs
    places: int = 0  # the same, for all needs together
    waits_since: float = 0.0  # since when, or since our last turn
    speed: float = 0.0  # the curve's, as far as that has proved true
    rate: float = 0.0  # reference seconds of work that one more action gets done there in a second, as things are
    top_rate: float = 0.0  # the same, without other users
    cores: int = 1
    commands: int = 1  # of the farm there, with one more
    load: float = 0.0  # share of its cores that others keep busy
    is_news: bool = False  # something happened there since its speed was judged
    judge_at_s: float = 0.0  # and from then on time alone changes it
    full: Pause = field(default_factory=Pause)
    lacking: dict[object, Pause] = field(default_factory=dict)  # what others hold, by needs
    factors: dict[object, float] = field(default_factory=dict)  # price over seconds, by task
    asked: set[object] = field(default_factory=set)  # tasks that it was asked for
    refuses: set[object] = field(default_factory=set)  # tasks that it will never run
    # of the plan that is being made
    open: int = 0  # slots that are free, and left
    counted: int = 0  # what was taken when it began
    placed: list[float] = field(default_factory=list)  # until when the plan takes slots that were free
    times: list[float] | None = None  # when the others come free; None as long as nobody asked

    def queue(self, job: Job, now: float) -> Wait:
        """One more place in its queue."""
        if not self.places:
            self.waits_since = now
        self.waiting[job.needs] += 1
        self.places += 1
        return Wait(self.name, job)

    def leave_queue(self, job: Job) -> None:
        """One less."""
        if self.waiting[job.needs] > 0:
            self.waiting[job.needs] -= 1
            self.places -= 1

    def lacks(self, job: Job, now: float) -> bool:
        """Whether others held what the job needs there a moment ago."""
        pause = self.lacking.get(job.needs)
        return pause is not None and pause.until_s > now

    def read(self, curve: Curve, now: float) -> None:
        """Take in a curve, unless a newer one is known."""
        if self.curve is None or curve.version >= self.curve.version:
            # What we have awarded there and is still on its way is not in its curve yet.
            self.curve, self.read_at, self.taken = curve, now, max(0, self.ours - curve.running)
            self.free_slots, self.said = curve.free_slots, curve.speed
            self.load = min(curve.busy / curve.cores, 1.0)
            self.is_news = True

    @property
    def has_room(self) -> bool:
        """Whether a slot is free there beyond what we have taken since, and what we wait for: the host gives that to
        our own place in its queue, and would refuse an award that comes after it."""
        return self.curve is not None and self.free_slots > self.taken + self.places

    def has_room_for_others(self, now: float, fresh_s: float = FRESH_S) -> bool:
        """Whether so many slots are free there, and that is so fresh, that one more award won't be in anybody's way."""
        waits = self.places > 0 or self.curve is None or self.curve.waiting > 0
        return not waits and now - self.read_at <= fresh_s and ROOM_PER_AWARD * (self.taken + 1) <= self.free_slots

    def slowness(self, job: Job) -> float:
        """How much more the job costs there, by the speed that it has shown, than by its own word."""
        if self.curve is None or self.speed >= self.curve.speed:
            return 0.0
        dearer_s = job.work_s / self.rate - job.work_s / self._rate(self.curve.speed)
        return dearer_s * max(self.factors.get(job.task, 1.0), 1.0)

    def note_rate(self) -> None:
        """The speed has been judged, or one more slot is taken."""
        curve = self.curve
        assert curve is not None
        self.cores, self.commands = curve.cores, min(curve.running + self.taken + 1, curve.slots)
        self.rate, self.top_rate = self._rate(self.speed), self.rate_beside(0.0)

    def rate_beside(self, load: float) -> float:
        """The same, with others on such a share of its cores."""
        wanted = self.commands / self.cores + load
        return self.speed if wanted <= 1.0 else self.speed / wanted

    def _rate(self, speed: float) -> float:
        curve = self.curve
        assert curve is not None
        return rate(speed, curve.cores, curve.busy, min(curve.running + self.taken + 1, curve.slots))
