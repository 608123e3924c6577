"""The default policy: plan the whole set, commit only what can start now.

At the start of a set every host is asked once for each sort of job in it. From the curves that come with the answers
the policy knows when each slot of each host comes free, and so it needs no further question: it goes through the jobs,
longest first, and gives each to the host where it would *finish* first (list scheduling by earliest finish time, as
HEFT's processor selection: Topcuoglu, Hariri, Wu 2002; longest first: Graham 1969). Where the plan has a job start now
the policy asks for the slot, by Wait, and awards the job when the slot is held for it; a job that would rather wait for
a faster host stays with us, and so does our place in that host's queue. Every result brings a fresh curve, and the slot
that came free with it, unless somebody waits for that.

Nothing is planned before every host that was asked has answered, or has had a moment for it: the nearest host answers
first, and would have the longest jobs, however slow it is.

So nobody acts on a slot that another client may have taken in the meantime: many clients that see the same idle host
are served in turn, and nothing queues at a host that another could start. A host that refused an award all the same is
full, whatever its curve says, for a time that doubles from 50 ms to 5 s with each further refusal; one that refused for
want of a licence is so only to the jobs that need it.
"""

import math
from bisect import insort
from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice

from msgspec import structs

from rakefarm.market.backups import Backups, Run
from rakefarm.market.choice import Choice, Held, runner_up_of
from rakefarm.market.curve import Curve, expected_s
from rakefarm.market.known_host import FIRST_PAUSE_S, KnownHost, Pause
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
    WakeAt,
    Withdrawn,
    Woken,
)
from rakefarm.market.track_record import TrackRecord

PATIENCE_S = 0.25
"""Who waits at a host for longer than this looks around again."""
ANSWERS_S, ANSWERS_SHARE = 0.05, 0.1
"""For so long a set waits for its first answers, and for no larger a share of its longest job's work."""
UNSURE_FACTOR = 2.0
"""A guess beside known times is planned as if it were so many times longer: what may turn out the longest of a set
costs most when it begins late, and at a slow host."""
HORIZON = 48
"""Jobs that a plan looks ahead at the most: what comes after them can't start soon."""


class PlanPolicy:
    """See the module's head."""

    def __init__(self, view: View, backups: bool = True) -> None:
        self._view = view
        self._record = TrackRecord()
        self._backups = Backups(backups)
        self._wake_at = math.inf
        self._hosts: dict[str, KnownHost] = {}
        self._pending: deque[Job] = deque()
        self._avoid: dict[int, set[str]] = {}
        self._unheard: set[str] = set()  # hosts that were asked when the set began
        self._answers_until = 0.0

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in what happened; answers what is to be done."""
        match event:
            case SetStarted(jobs, hosts):
                return self._start_set(jobs, hosts)
            case Quoted(job, host, price, seconds, curve):
                self._note_quote(self._host(host), job, price, seconds, curve)
            case Declined(job, host, lasting):
                known = self._host(host)
                self._unheard.discard(host)
                if job.task in known.factors:  # else the answer to a question: we wait only for what it has bid for
                    known.leave_queue(job)
                if lasting:
                    known.refuses.add(job.task)
                else:
                    known.full.begin(self._view.now())
            case Refused(job, host, curve, lacking):
                known = self._host(host)
                known.read(curve, self._view.now())
                pause = known.lacking.setdefault(job.needs, Pause()) if lacking else known.full
                pause.begin(self._view.now())
                return self._leave(job, host)
            case SlotFree(host, curve, job):
                known = self._host(host)
                known.read(curve, self._view.now())
                known.leave_queue(job)
                known.waits_since = self._view.now()
                known.full.until_s = 0.0
                known.lacking.pop(job.needs, None)
                return self._plan(host, held_for=job)
            case Finished(job, host, seconds, curve, succeeded):
                known = self._host(host)
                known.full.next_s = FIRST_PAUSE_S
                self._end(job, host, seconds if succeeded else 0.0)
                self._backups.settle(job)
                if curve is not None:
                    known.read(curve, self._view.now())
                    if known.has_room:
                        return self._refill(known, curve) or self._plan(host)
            case Lost(job, host):
                self._avoid.setdefault(job.number, set()).add(host)
                return self._leave(job, host)
            case Superseded(job, host):
                self._end(job, host, stopped=True)
                self._backups.settle(job)  # the word that it is done elsewhere may come later
            case Withdrawn(job):
                self._pending = deque(pending for pending in self._pending if pending.number != job.number)
            case HostUp(facts):
                self._hosts[facts.name] = KnownHost(facts.name, facts.slots)
                return [effect for job in self._sorts() for effect in self._ask_new_hosts(job)]
            case HostDown(host):
                self._hosts.pop(host, None)
                self._unheard.discard(host)
            case Woken():
                self._wake_at = math.inf
        return self._plan()

    def _host(self, name: str) -> KnownHost:
        return self._hosts.setdefault(name, KnownHost(name, 1))

    def _start_set(self, jobs: Sequence[Job], hosts: Sequence[HostFacts]) -> list[Effect]:
        if any(job.known for job in jobs):
            jobs = [job if job.known else structs.replace(job, work_s=UNSURE_FACTOR * job.work_s) for job in jobs]
        self._pending = deque(sorted(jobs, key=lambda job: -job.work_s))
        self._avoid.clear()
        self._backups.forget()
        self._wake_at = math.inf
        # What was known of a host's slots is as old as the last set; nobody waits anywhere for this one yet.
        self._hosts = {facts.name: KnownHost(facts.name, facts.slots) for facts in hosts}
        if not hosts or not jobs:
            return []
        self._unheard = set(self._hosts)
        self._answers_until = self._view.now() + min(ANSWERS_S, ANSWERS_SHARE * self._pending[0].work_s)
        asks = [effect for job in self._sorts() for effect in self._ask_new_hosts(job)]
        return [*asks, WakeAt(self._answers_until)]

    def _ask_new_hosts(self, job: Job) -> list[Effect]:
        """Ask those that have not been asked for such jobs: a host may have come when none was pending."""
        new = [host for host in self._hosts.values() if job.task not in host.asked]
        for host in new:
            host.asked.add(job.task)
        return [Ask(job, tuple([host.name for host in new]))] if new else []

    def _sorts(self) -> list[Job]:
        """One job of each sort that is pending."""
        return list({job.task: job for job in reversed(self._pending)}.values())

    def _note_quote(self, host: KnownHost, job: Job, price: float, seconds: float, curve: Curve) -> None:
        self._unheard.discard(host.name)
        host.factors[job.task] = price / seconds
        host.refuses.discard(job.task)
        host.read(curve, self._view.now())

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

    def _leave(self, job: Job, host: str) -> list[Effect]:
        """Nothing came of it there: unless a copy runs, it is to be awarded again."""
        self._end(job, host)
        if self._backups.is_running(job):
            return self._plan()
        self._pending.appendleft(job)
        return [*self._ask_new_hosts(job), *self._plan()]

    # --- the plan -------------------------------------------------------------------------------------

    def _plan(self, startable: str = "", held_for: Job | None = None) -> list[Effect]:
        """Award a job to the host `startable`, which has a slot for us, if the plan has one start there; and wait for
        the slots that the plan wants. A slot that is held, for what the job `held_for` needs, is given up if it is not
        used now; another one is anybody's."""
        now = self._view.now()
        if self._unheard and now < self._answers_until:
            return []
        runs = self._backups.by_host()
        places = {
            host.name: self._places(host, runs.get(host.name, ()), now)
            for host in self._hosts.values()
            if host.curve is not None
        }
        held: Held | None = None
        if held_for is not None and startable in places:
            held = Held(startable, held_for.needs)
            times = places[startable]
            insort(times, times.pop(0) + self._typical(self._hosts[startable]))  # to others it is taken
        wanted: dict[str, list[Job]] = {}
        effects, look_at = self._back_up(places, wanted, held, now)
        if any(isinstance(effect, BackUp) for effect in effects):
            startable, held = "", None
        left: list[Job] = []
        while self._pending and len(left) < HORIZON and (held or any(times[0] <= 0.0 for times in places.values())):
            job = self._pending.popleft()
            best = self._best(job, places, held, now)
            if best is None:
                left.append(job)
                continue
            host = best.host
            if held is not None and held.fits(host.name, job):
                startable, held = "", None
            elif host.lacks(job, now):
                # It takes no slot from others meanwhile: the host lets them pass in its queue, too.
                left.append(job)
                if not host.waiting[job.needs]:
                    effects.append(host.queue(job, now))
                continue
            else:
                times = places[host.name]
                times.pop(0)
                insort(times, best.start + best.run)
                if best.start > 0.0 or host.name != startable or held_for is not None:
                    wanted.setdefault(host.name, []).append(job)
                    left.append(job)
                    continue
                startable = ""
            second = self._best(job, places, None, now, without=host.name)
            effects.append(self._begin(Award, job, best, second, now))
        self._pending.extendleft(reversed(left))
        self._want_more(places, wanted, now, skip=len(left))
        effects += self._waits(wanted, now)
        pauses = [pause.until_s for host in self._hosts.values() for pause in (host.full, *host.lacking.values())]
        soonest = min((until_s for until_s in pauses if until_s > now), default=None)
        if soonest is not None and (self._pending or wanted):
            effects.append(WakeAt(soonest))
        look_at = min(look_at, self._backups.next_overdue_s(now))
        if self._pending and any(host.waiting.total() for host in self._hosts.values()):
            look_at = min(look_at, now + PATIENCE_S)
        if look_at < self._wake_at:
            self._wake_at = look_at
            effects.append(WakeAt(look_at))
        return effects

    def _begin(self, kind: type[Award], job: Job, best: Choice, second: Choice | None, now: float) -> Award:
        host, others = best.host, runner_up_of(job, second)
        slowness = host.slowness(job)
        host.taken += 1
        host.ours += 1
        sending = self._view.transfer_s(job, host.name)
        # At a whole core's rate, and by the host's own word: what was learned before must not count twice.
        work = (best.run - sending) * host.speed if job.known else 0.0
        self._backups.begin(Run(job, host.name, now, best.finish, sending, work))
        return kind(job, host.name, best.cost, best.finish, True, others[0], others[1], slowness, others[2])

    def _back_up(
        self, places: dict[str, list[float]], wanted: dict[str, list[Job]], held: Held | None, now: float
    ) -> tuple[list[Effect], float]:
        """Copies of what is overdue, before anything else gets a slot; and when one that isn't worth it yet will be."""
        look_at = math.inf
        effects: list[Effect] = []
        for late in self._backups.overdue(now):
            job = late.job
            best = self._best(job, places, held, now, without=late.host)
            if best is None:
                continue
            host = best.host
            if late.worth_at_s(best.finish) > now:
                look_at = min(look_at, late.worth_at_s(best.finish))
            elif held is not None and held.fits(host.name, job):
                held = None
                effects.append(self._begin(BackUp, job, best, None, now))
            elif not host.lacks(job, now):
                times = places[host.name]
                times.pop(0)
                insort(times, best.start + best.run)
                wanted.setdefault(host.name, []).append(job)
        return effects, look_at

    def _want_more(self, places: dict[str, list[float]], wanted: dict[str, list[Job]], now: float, skip: int) -> None:
        """What can't start yet may still wait at the hosts of the plan. Where actions run and all are ours there is no
        need: their end brings a fresh curve."""
        shared = {
            host.name
            for host in self._hosts.values()
            if not host.waiting.total()
            and host.curve is not None
            and (not host.ours or host.curve.waiting or host.curve.running > host.ours)
        }
        if not shared:
            return
        for job in islice(self._pending, skip, skip + 2 * len(places)):
            best = self._best(job, places, None, now)
            if best is not None:
                times = places[best.host.name]
                times.pop(0)
                insort(times, best.start + best.run)
                if best.host.name in shared:
                    wanted.setdefault(best.host.name, [job])

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
                    effects.append(host.queue(job, now))
        return effects

    def _refill(self, host: KnownHost, curve: Curve) -> list[Effect] | None:
        """What `_plan` would find where there is nothing to plan, no need to wait and nowhere to back up: one host,
        whose one free slot is the one that has just come free, and only we run there. None when there is more to it."""
        now = self._view.now()
        if len(self._hosts) > 1 or not self._pending or self._avoid or host.lacking or host.full.until_s > now:
            return None
        if curve.free_slots - host.taken > 1 or curve.running + curve.waiting > host.ours + 1 or host.waiting.total():
            return None
        best = self._best(self._pending[0], {host.name: [0.0]}, None, now)
        return None if best is None else [self._begin(Award, self._pending.popleft(), best, None, now)]

    def _places(self, host: KnownHost, runs: Sequence[Run], now: float) -> list[float]:
        """Seconds from now until each slot of the host comes free, as its curve and our own awards since have it."""
        curve = host.curve
        assert curve is not None
        age = now - host.read_at
        running = [(run.work_s, run.elapsed_s(now) - run.sending_s) for run in runs]
        host.speed = self._record.speed(host.name, curve.speed, running)
        # Who takes longer than it says also has its slots free later than it says.
        slowness = max(1.0, curve.speed / host.speed)
        times = sorted([expected_s(time * slowness - age) if time > 0.0 else 0.0 for time in curve.free_in_s])
        waited = now - host.waits_since if host.waiting.total() else 0.0
        if waited > PATIENCE_S:  # whatever it said: its slots are not free for us
            times = [max(time, expected_s(-waited)) for time in times]
        run = self._typical(host)
        for _ in range(min(host.taken, 2 * len(times))):
            insort(times, times.pop(0) + run)
        if host.full.until_s > now:
            times = [max(time, host.full.until_s - now) for time in times]
        return times

    def _typical(self, host: KnownHost) -> float:
        work = self._pending[0].work_s if self._pending else 0.5
        return work / host.rate

    def _best(
        self, job: Job, places: dict[str, list[float]], held: Held | None, now: float, without: str = ""
    ) -> Choice | None:
        """The host where the job finishes first, of all `without` one."""
        avoided = self._avoid.get(job.number, ())
        if len(avoided) >= len(places):
            avoided = ()
        best: Choice | None = None
        for name, times in places.items():
            host = self._hosts[name]
            if job.task not in host.factors or job.task in host.refuses or name in avoided or name == without:
                continue
            run = max(job.work_s / host.rate, 1e-6)
            transfer = self._view.transfer_s(job, name)
            start = 0.0 if held is not None and held.fits(name, job) else times[0]
            if host.lacks(job, now):
                start = max(start, host.lacking[job.needs].until_s - now)
            finish = max(start, transfer) + run
            cost = finish + run * max(host.factors.get(job.task, 1.0) - 1.0, 0.0)
            if best is None or cost < best.cost:
                best = Choice(host, cost, start, finish, run + transfer)
        return best
