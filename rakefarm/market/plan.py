"""The default policy: plan the whole set, commit only what can start now.

At the start of a set every host is asked once for each sort of job in it. From the curves that come with the answers
the policy knows when each slot of each host comes free, and so it needs no further question: it goes through the jobs,
longest first, and gives each to the host where it would *finish* first (list scheduling by earliest finish time, as
HEFT's processor selection: Topcuoglu, Hariri, Wu 2002; longest first: Graham 1969). Where the plan has a job start now
the policy asks for the slot, by Wait, and awards the job when the slot is held for it; a job that would rather wait for
a faster host stays with us, and so does our place in that host's queue. Every result brings a fresh curve, and the slot
that came free with it, unless somebody waits for that.

So nobody acts on a slot that another client may have taken in the meantime: many clients that see the same idle host
are served in turn, and nothing queues at a host that another could start. A host that refused an award all the same is
full, whatever its curve says, for a time that doubles from 50 ms to 5 s with each further refusal; one that refused for
want of a licence is so only to the jobs that need it.
"""

from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice

from msgspec import Struct, field

from rakefarm.market.curve import Curve, rate
from rakefarm.market.policy import (
    Ask,
    Award,
    Declined,
    Effect,
    Event,
    Finished,
    HostDown,
    HostFacts,
    HostUp,
    Job,
    Lost,
    Quoted,
    Refused,
    SetStarted,
    SlotFree,
    View,
    Wait,
    WakeAt,
    Withdrawn,
    Woken,
)

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
HORIZON = 48
"""Jobs that a plan looks ahead at the most: what comes after them can't start soon."""


class _Pause(Struct):
    """Until when something can't be had there, and for how long the next time."""

    until_s: float = 0.0
    next_s: float = FIRST_PAUSE_S

    def begin(self, now: float) -> None:
        """Once more."""
        self.until_s = now + self.next_s
        self.next_s = min(self.next_s * 2, LONGEST_PAUSE_S)


class _Host(Struct):
    """What we know of a host: its curve, when we got it, and what we have done there since."""

    name: str
    slots: int
    curve: Curve | None = None
    read_at: float = 0.0
    taken: int = 0  # slots that we have awarded since the curve was made
    ours: int = 0  # actions of ours that are there
    waiting: Counter[object] = field(default_factory=Counter)  # how often we stand in its queue, by needs
    full: _Pause = field(default_factory=_Pause)
    lacking: dict[object, _Pause] = field(default_factory=dict)  # what others hold, by needs
    factors: dict[object, float] = field(default_factory=dict)  # price over seconds, by task
    refuses: set[object] = field(default_factory=set)  # tasks that it will never run

    def lacks(self, job: Job, now: float) -> bool:
        """Whether others held what the job needs there a moment ago."""
        pause = self.lacking.get(job.needs)
        return pause is not None and pause.until_s > now


class PlanPolicy:
    """See the module's head."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._hosts: dict[str, _Host] = {}
        self._pending: deque[Job] = deque()
        self._avoid: dict[int, set[str]] = {}

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in what happened; answers what is to be done."""
        match event:
            case SetStarted(jobs, hosts):
                return self._start_set(jobs, hosts)
            case Quoted(job, host, price, seconds, curve):
                self._note_quote(self._host(host), job, price, seconds, curve)
            case Declined(job, host, lasting):
                known = self._host(host)
                if job.task in known.factors:  # else the answer to a question: we wait only for what it has bid for
                    _leave_queue(known, job)
                if lasting:
                    known.refuses.add(job.task)
                else:
                    known.full.begin(self._view.now())
            case Refused(job, host, curve, lacking):
                known = self._host(host)
                known.ours -= 1
                self._read(known, curve)
                pause = known.lacking.setdefault(job.needs, _Pause()) if lacking else known.full
                pause.begin(self._view.now())
                self._pending.appendleft(job)
            case SlotFree(host, curve, job):
                known = self._host(host)
                self._read(known, curve)
                _leave_queue(known, job)
                known.full.until_s = 0.0
                known.lacking.pop(job.needs, None)
                return self._plan(host, held_for=job)
            case Finished(_, host, _, curve):
                known = self._host(host)
                known.full.next_s = FIRST_PAUSE_S
                known.ours = max(0, known.ours - 1)
                if curve is not None:
                    self._read(known, curve)
                    if self._has_room(known):
                        return self._refill(known, curve) or self._plan(host)
            case Lost(job, host):
                self._avoid.setdefault(job.number, set()).add(host)
                if host in self._hosts:
                    self._hosts[host].ours = max(0, self._hosts[host].ours - 1)
                self._pending.appendleft(job)
            case Withdrawn(job):
                self._pending = deque(pending for pending in self._pending if pending.number != job.number)
            case HostUp(facts):
                self._hosts[facts.name] = _Host(facts.name, facts.slots)
                return [Ask(job, (facts.name,)) for job in self._sorts()]
            case HostDown(host):
                self._hosts.pop(host, None)
            case Woken():
                pass
        return self._plan()

    def _host(self, name: str) -> _Host:
        return self._hosts.setdefault(name, _Host(name, 1))

    def _start_set(self, jobs: Sequence[Job], hosts: Sequence[HostFacts]) -> list[Effect]:
        self._pending = deque(sorted(jobs, key=lambda job: -job.work_s))
        self._avoid.clear()
        # What was known of a host's slots is as old as the last set; nobody waits anywhere for this one yet.
        self._hosts = {facts.name: _Host(facts.name, facts.slots) for facts in hosts}
        names = tuple(self._hosts)
        return [Ask(job, names) for job in self._sorts()] if names else []

    def _sorts(self) -> list[Job]:
        """One job of each sort that is pending."""
        return list({job.task: job for job in reversed(self._pending)}.values())

    def _note_quote(self, host: _Host, job: Job, price: float, seconds: float, curve: Curve) -> None:
        host.factors[job.task] = price / seconds
        host.refuses.discard(job.task)
        self._read(host, curve)

    def _read(self, host: _Host, curve: Curve) -> None:
        if host.curve is None or curve.version >= host.curve.version:
            # What we have awarded there and is still on its way is not in its curve yet.
            host.curve, host.read_at, host.taken = curve, self._view.now(), max(0, host.ours - curve.running)

    def _has_room(self, host: _Host) -> bool:
        """Whether a slot is free there beyond what we have taken since, and what we wait for: the host gives that to
        our own place in its queue, and would refuse an award that comes after it."""
        return host.curve is not None and host.curve.free_slots > host.taken + host.waiting.total()

    # --- the plan -------------------------------------------------------------------------------------

    def _plan(self, startable: str = "", held_for: Job | None = None) -> list[Effect]:
        """Award a job to the host `startable`, which has a slot for us, if the plan has one start there; and wait for
        the slots that the plan wants. A slot that is held, for what the job `held_for` needs, is given up if it is not
        used now; another one is anybody's."""
        now = self._view.now()
        places = {host.name: self._places(host, now) for host in self._hosts.values() if host.curve is not None}
        held: _Held | None = None
        if held_for is not None and startable in places:
            held = _Held(startable, held_for.needs)
            times = places[startable]
            _insert(times, times.pop(0) + self._typical(self._hosts[startable]))  # to others it is taken
        effects: list[Effect] = []
        wanted: dict[str, list[Job]] = {}
        left: list[Job] = []
        while self._pending and len(left) < HORIZON and (held or any(times[0] <= 0.0 for times in places.values())):
            job = self._pending.popleft()
            best = self._best(job, places, held, now)
            if best is None:
                left.append(job)
                continue
            host, start, finish, run = best
            if held is not None and held.fits(host.name, job):
                startable, held = "", None
            elif host.lacks(job, now):
                # It takes no slot from others meanwhile: the host lets them pass in its queue, too.
                left.append(job)
                if not host.waiting[job.needs]:
                    host.waiting[job.needs] += 1
                    effects.append(Wait(host.name, job))
                continue
            else:
                times = places[host.name]
                times.pop(0)
                _insert(times, start + run)
                if start > 0.0 or host.name != startable or held_for is not None:
                    wanted.setdefault(host.name, []).append(job)
                    left.append(job)
                    continue
                startable = ""
            host.taken += 1
            host.ours += 1
            effects.append(Award(job, host.name, finish * host.factors.get(job.task, 1.0), finish))
        self._pending.extendleft(reversed(left))
        self._want_more(places, wanted, now, skip=len(left))
        effects += self._waits(wanted, now)
        pauses = [pause.until_s for host in self._hosts.values() for pause in (host.full, *host.lacking.values())]
        soonest = min((until_s for until_s in pauses if until_s > now), default=None)
        if self._pending and soonest is not None:
            effects.append(WakeAt(soonest))
        return effects

    def _want_more(self, places: dict[str, list[float]], wanted: dict[str, list[Job]], now: float, skip: int) -> None:
        """What can't start yet may still wait at the hosts of the plan. Where actions run and all are ours there is no
        need: their end brings a fresh curve."""
        shared = {
            host.name
            for host in self._hosts.values()
            if not host.waiting.total()
            and host.curve is not None
            and (not host.ours or host.curve.running + host.curve.waiting > host.ours)
        }
        if not shared:
            return
        for job in islice(self._pending, skip, skip + 2 * len(places)):
            best = self._best(job, places, None, now)
            if best is not None:
                host, start, _, run = best
                times = places[host.name]
                times.pop(0)
                _insert(times, start + run)
                if host.name in shared:
                    wanted.setdefault(host.name, [job])

    def _waits(self, wanted: dict[str, list[Job]], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for name, jobs in wanted.items():
            host = self._hosts[name]
            if host.full.until_s > now:
                continue  # it would decline again at once, and we ask again at once
            free = host.curve.free_slots if host.curve is not None else 0
            # One place in the queue for each slot that is free, or one for the next that comes free.
            due: Counter[object] = Counter()
            for job in jobs[: max(free - host.taken, 1)]:
                due[job.needs] += 1
                if due[job.needs] > host.waiting[job.needs]:
                    host.waiting[job.needs] += 1
                    effects.append(Wait(name, job))
        return effects

    def _refill(self, host: _Host, curve: Curve) -> list[Effect] | None:
        """What `_plan` would find where there is nothing to plan, and no need to wait: one host, whose one free slot is
        the one that has just come free, and only we run there. None when there is more to it."""
        if len(self._hosts) > 1 or not self._pending or self._avoid or host.lacking:
            return None
        job = self._pending[0]
        factor = host.factors.get(job.task)
        if factor is None or job.task in host.refuses or curve.free_slots - host.taken > 1:
            return None
        if host.full.until_s > self._view.now() or host.waiting.total():
            return None
        run = max(job.work_s / self._rate(host), 1e-6)
        finish = self._view.transfer_s(job, host.name) + run
        if curve.running + curve.waiting > host.ours + 1:
            return None
        self._pending.popleft()
        host.taken += 1
        host.ours += 1
        return [Award(job, host.name, finish * factor, finish)]

    def _places(self, host: _Host, now: float) -> list[float]:
        """Seconds from now until each slot of the host comes free, as its curve and our own awards since have it."""
        curve = host.curve
        assert curve is not None
        age = now - host.read_at
        times = [max(0.0, time - age) if time > 0.0 else 0.0 for time in curve.free_in_s]
        # An overdue end is no free slot yet: only the host can say so.
        times = [
            time if time > 0.0 or free == 0.0 else 0.005 for time, free in zip(times, curve.free_in_s, strict=True)
        ]
        run = self._typical(host)
        for _ in range(min(host.taken, 2 * len(times))):
            _insert(times, times.pop(0) + run)
        if host.full.until_s > now:
            times = [max(time, host.full.until_s - now) for time in times]
        return times

    def _typical(self, host: _Host) -> float:
        work = self._pending[0].work_s if self._pending else 0.5
        return work / self._rate(host)

    def _rate(self, host: _Host) -> float:
        curve = host.curve
        assert curve is not None
        return rate(curve.speed, curve.cores, curve.busy, min(curve.running + host.taken + 1, curve.slots))

    def _best(
        self, job: Job, places: dict[str, list[float]], held: "_Held | None", now: float
    ) -> tuple[_Host, float, float, float] | None:
        """The host where the job finishes first, when it starts and ends there (seconds from now), and how long it
        occupies a slot."""
        avoided = self._avoid.get(job.number, ())
        if len(avoided) >= len(places):
            avoided = ()
        best: tuple[float, _Host, float, float, float] | None = None
        for name, times in places.items():
            host = self._hosts[name]
            if job.task not in host.factors or job.task in host.refuses or name in avoided:
                continue
            run = max(job.work_s / self._rate(host), 1e-6)
            transfer = self._view.transfer_s(job, name)
            start = 0.0 if held is not None and held.fits(name, job) else times[0]
            if host.lacks(job, now):
                start = max(start, host.lacking[job.needs].until_s - now)
            finish = max(start, transfer) + run
            cost = finish + run * max(host.factors.get(job.task, 1.0) - 1.0, 0.0)
            if best is None or cost < best[0]:
                best = (cost, host, start, finish, run + transfer)
        return best[1:] if best is not None else None


class _Held(Struct, frozen=True):
    """A slot that a host holds for us, and for which needs."""

    host: str
    needs: object

    def fits(self, host: str, job: Job) -> bool:
        """Whether the job may use it, on that host."""
        return host == self.host and job.needs == self.needs


def _leave_queue(host: _Host, job: Job) -> None:
    host.waiting[job.needs] = max(0, host.waiting[job.needs] - 1)


def _insert(times: list[float], time: float) -> None:
    position = len(times)
    while position and times[position - 1] > time:
        position -= 1
    times.insert(position, time)
