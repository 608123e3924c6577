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
full, whatever its curve says, for a time that doubles from 50 ms to 5 s with each further refusal.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from msgspec import Struct, field

from rakefarm.market.backups import Backups, Run
from rakefarm.market.curve import Curve, expected_s, rate
from rakefarm.market.policy import (
    Ask,
    Award,
    BackUp,
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
    Superseded,
    View,
    Wait,
    WakeAt,
    Withdrawn,
    Woken,
)
from rakefarm.market.track_record import TrackRecord

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
PATIENCE_S = 0.25
"""Who waits at a host for longer than this looks around again."""
HORIZON = 48
"""Jobs that a plan looks ahead at the most: what comes after them can't start soon."""


class _Host(Struct):
    """What we know of a host: its curve, when we got it, and what we have done there since."""

    name: str
    slots: int
    curve: Curve | None = None
    read_at: float = 0.0
    taken: int = 0  # slots that we have awarded since the curve was made
    ours: int = 0  # actions of ours that are there
    waiting: int = 0  # how often we stand in its queue
    waits_since: float = 0.0  # since when, or since our last turn
    full_until: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    speed: float = 0.0  # of the plan that is made: the curve's, as far as that has proved true
    factors: dict[object, float] = field(default_factory=dict)  # price over seconds, by task
    refuses: set[object] = field(default_factory=set)  # tasks that it will never run


class PlanPolicy:
    """See the module's head."""

    def __init__(self, view: View, backups: bool = True) -> None:
        self._view = view
        self._record = TrackRecord()
        self._backups = Backups(backups)
        self._wake_at = float("inf")
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
                    known.waiting = max(0, known.waiting - 1)
                if lasting:
                    known.refuses.add(job.task)
                else:
                    self._back_off(known)
            case Refused(job, host, curve):
                known = self._host(host)
                self._read(known, curve)
                self._back_off(known)
                self._leave(job, host)
            case SlotFree(host, curve):
                known = self._host(host)
                self._read(known, curve)
                known.waiting, known.full_until = max(0, known.waiting - 1), 0.0
                known.waits_since = self._view.now()
                return self._plan(startable=host)
            case Finished(job, host, seconds, curve, succeeded):
                known = self._host(host)
                known.pause_s = FIRST_PAUSE_S
                self._end(job, host, seconds if succeeded else 0.0)
                self._backups.settle(job)
                if curve is not None:
                    self._read(known, curve)
                    if curve.free_slots:
                        return self._plan(startable=host)
            case Lost(job, host):
                self._avoid.setdefault(job.number, set()).add(host)
                self._leave(job, host)
            case Superseded(job, host):
                self._end(job, host, stopped=True)
                self._backups.settle(job)  # the word that it is done elsewhere may come later
            case Withdrawn(job):
                self._pending = deque(pending for pending in self._pending if pending.number != job.number)
            case HostUp(facts):
                self._hosts[facts.name] = _Host(facts.name, facts.slots)
                return [Ask(job, (facts.name,)) for job in self._sorts()]
            case HostDown(host):
                self._hosts.pop(host, None)
            case Woken():
                self._wake_at = float("inf")
        return self._plan()

    def _host(self, name: str) -> _Host:
        return self._hosts.setdefault(name, _Host(name, 1))

    def _start_set(self, jobs: Sequence[Job], hosts: Sequence[HostFacts]) -> list[Effect]:
        self._pending = deque(sorted(jobs, key=lambda job: -job.work_s))
        self._avoid.clear()
        self._backups.forget()
        self._wake_at = float("inf")
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

    def _end(self, job: Job, host: str, seconds: float = 0.0, stopped: bool = False) -> None:
        """It is over there, after so many seconds if it has succeeded, or was stopped on the way."""
        if host in self._hosts:
            self._hosts[host].ours = max(0, self._hosts[host].ours - 1)
        run = self._backups.end(job, host)
        if run is None:
            return
        if stopped and run.elapsed_s(self._view.now()) > run.bid_s:
            seconds = run.elapsed_s(self._view.now())  # it would have taken longer still
        if seconds:
            self._record.learn(host, run.work_s, seconds - run.sending_s)

    def _leave(self, job: Job, host: str) -> None:
        """Nothing came of it there: unless a copy runs, it is to be awarded again."""
        self._end(job, host)
        if not self._backups.is_running(job):
            self._pending.appendleft(job)

    def _back_off(self, host: _Host) -> None:
        host.full_until = self._view.now() + host.pause_s
        host.pause_s = min(host.pause_s * 2, LONGEST_PAUSE_S)

    # --- the plan -------------------------------------------------------------------------------------

    def _plan(self, startable: str = "") -> list[Effect]:
        """Award a job to the host `startable`, which has a slot for us, if the plan has one start there; and wait for
        the slots that the plan wants. A slot that is not used now is given up."""
        now = self._view.now()
        running = self._backups.by_host()
        places = {
            host.name: self._places(host, running.get(host.name, ()), now)
            for host in self._hosts.values()
            if host.curve is not None
        }
        if places.get(startable):
            places[startable][0] = 0.0
        wanted: dict[str, list[Job]] = {}
        effects, wake_at = self._back_up(places, wanted, startable, now)
        if any(isinstance(effect, BackUp) for effect in effects):
            startable = ""
        left: list[Job] = []
        while self._pending and len(left) < HORIZON and any(times and times[0] <= 0.0 for times in places.values()):
            job = self._pending.popleft()
            best = self._best(job, places)
            if best is None:
                left.append(job)
                continue
            host, finish, run = best
            times = places[host.name]
            start = times.pop(0)
            if start <= 0.0 and host.name == startable:
                startable = ""
                self._begin(job, host, finish, run, now)
                effects.append(Award(job, host.name, finish * host.factors.get(job.task, 1.0), finish))
            else:
                wanted.setdefault(host.name, []).append(job)
                left.append(job)
            _insert(times, start + run)
        self._pending.extendleft(reversed(left))
        self._want_more(places, wanted, skip=len(left))
        effects += self._waits(wanted, now)
        pauses = [host.full_until for host in self._hosts.values() if host.full_until > now]
        if pauses and (self._pending or wanted):
            effects.append(WakeAt(min(pauses)))
        wake_at = min(wake_at, self._backups.next_overdue_s(now))
        if self._pending and any(host.waiting for host in self._hosts.values()):
            wake_at = min(wake_at, now + PATIENCE_S)
        if wake_at < self._wake_at:
            self._wake_at = wake_at
            effects.append(WakeAt(wake_at))
        return effects

    def _begin(self, job: Job, host: _Host, finish: float, run: float, now: float) -> None:
        host.taken += 1
        host.ours += 1
        assert host.curve is not None
        sending = self._view.transfer_s(job, host.name)
        # At a whole core's rate, and by the host's own word: what was learned before must not count twice.
        work = (run - sending) * host.speed if job.known else 0.0
        self._backups.begin(Run(job, host.name, now, finish, sending, work))

    def _back_up(
        self, places: dict[str, list[float]], wanted: dict[str, list[Job]], startable: str, now: float
    ) -> tuple[list[Effect], float]:
        """Copies of what is overdue, before anything else gets a slot; and when one that isn't worth it yet will be."""
        wake_at = float("inf")
        effects: list[Effect] = []
        for candidate in self._backups.overdue(now):
            job = candidate.job
            best = self._best(job, places, without=candidate.host)
            if best is None:
                continue
            host, finish, run = best
            if candidate.worth_at_s(finish) > now:
                wake_at = min(wake_at, candidate.worth_at_s(finish))
                continue
            times = places[host.name]
            start = times.pop(0)
            if start <= 0.0 and host.name == startable:
                startable = ""
                self._begin(job, host, finish, run, now)
                effects.append(BackUp(job, host.name, finish * host.factors.get(job.task, 1.0), finish))
            else:
                wanted.setdefault(host.name, []).append(job)
            _insert(times, start + run)
        return effects, wake_at

    def _want_more(self, places: dict[str, list[float]], wanted: dict[str, list[Job]], skip: int) -> None:
        """What can't start yet may still wait at the hosts of the plan. Where actions run and all are ours there is no
        need: their end brings a fresh curve."""
        shared = {
            host.name
            for host in self._hosts.values()
            if not host.waiting
            and host.curve is not None
            and (not host.ours or host.curve.running + host.curve.waiting > host.ours)
        }
        if not shared:
            return
        for job in islice(self._pending, skip, skip + 2 * len(places)):
            best = self._best(job, places)
            if best is not None:
                host, _, run = best
                times = places[host.name]
                _insert(times, times.pop(0) + run)
                if host.name in shared:
                    wanted.setdefault(host.name, [job])

    def _waits(self, wanted: dict[str, list[Job]], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for name, jobs in wanted.items():
            host = self._hosts[name]
            if host.full_until > now:
                continue  # it would decline again at once, and we ask again at once
            free = host.curve.free_slots if host.curve is not None else 0
            # One place in the queue for each slot that is free, or one for the next that comes free.
            more = min(len(jobs), max(free - host.taken, 1)) - host.waiting
            for job in jobs[: max(more, 0)]:
                if not host.waiting:
                    host.waits_since = now
                host.waiting += 1
                effects.append(Wait(name, job))
        return effects

    def _places(self, host: _Host, runs: Sequence[Run], now: float) -> list[float]:
        """Seconds from now until each slot of the host comes free, as its curve and our own awards since have it."""
        curve = host.curve
        assert curve is not None
        age = now - host.read_at
        running = [(run.work_s, run.elapsed_s(now) - run.sending_s) for run in runs]
        host.speed = self._record.speed(host.name, curve.speed, running)
        # Who takes longer than it says also has its slots free later than it says.
        slowness = max(1.0, curve.speed / host.speed)
        times = sorted([expected_s(time * slowness - age) if time > 0.0 else 0.0 for time in curve.free_in_s])
        waited = now - host.waits_since if host.waiting else 0.0
        if waited > PATIENCE_S:  # whatever it said: its slots are not free for us
            times = [max(time, expected_s(-waited)) for time in times]
        run = self._typical(host)
        for _ in range(min(host.taken, 2 * len(times))):
            _insert(times, times.pop(0) + run)
        if host.full_until > now:
            times = [max(time, host.full_until - now) for time in times]
        return times

    def _typical(self, host: _Host) -> float:
        work = self._pending[0].work_s if self._pending else 0.5
        return work / self._rate(host)

    def _rate(self, host: _Host) -> float:
        curve = host.curve
        assert curve is not None
        return rate(host.speed, curve.cores, curve.busy, min(curve.running + host.taken + 1, curve.slots))

    def _best(self, job: Job, places: dict[str, list[float]], without: str = "") -> tuple[_Host, float, float] | None:
        """The host where the job finishes first, when (seconds from now), and how long it occupies a slot there."""
        avoided = self._avoid.get(job.number, ())
        if len(avoided) >= len(places):
            avoided = ()
        best: tuple[float, _Host, float, float] | None = None
        for name, times in places.items():
            host = self._hosts[name]
            if (
                not times
                or job.task not in host.factors
                or job.task in host.refuses
                or name in avoided
                or name == without
            ):
                continue
            run = max(job.work_s / self._rate(host), 1e-6)
            transfer = self._view.transfer_s(job, name)
            finish = max(times[0], transfer) + run
            cost = finish + run * max(host.factors.get(job.task, 1.0) - 1.0, 0.0)
            if best is None or cost < best[0]:
                best = (cost, host, finish, run + transfer)
        return best[1:] if best is not None else None


def _insert(times: list[float], time: float) -> None:
    position = len(times)
    while position and times[position - 1] > time:
        position -= 1
    times.insert(position, time)
