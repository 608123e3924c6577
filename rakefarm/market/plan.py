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

Several clients plan at one time, each for itself, and what is short and starts first on the fastest host may be in the
way of another client's longest. So what would end long before the set's last anyway goes to the slowest host where that
is so. And where a host has just said that far more slots are free than there are jobs to start, the way through its
queue is saved.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice

from msgspec import structs

from rakefarm.market.backups import Backups, Run
from rakefarm.market.choice import Choice, Held, runner_up_of
from rakefarm.market.curve import Curve
from rakefarm.market.known_host import FIRST_PAUSE_S, KnownHost, Pause
from rakefarm.market.outlook import PATIENCE_S, TYPICAL_WORK_S, Outlook
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

ANSWERS_S, ANSWERS_SHARE = 0.05, 0.1
"""For so long a set waits for its first answers, and for no larger a share of its longest job's work."""
UNSURE_FACTOR = 2.0
"""A guess beside known times is planned as if it were so many times longer: what may turn out the longest of a set
costs most when it begins late, and at a slow host."""
SOON_SHARE = 0.5
"""What would end before this share of the set's time is no hurry."""
ROOM_PER_JOB = 8
"""With so many free slots for each job that is left, jobs are awarded to hosts that have room without a place in their
queues: that others take all of it in the time of a message is unlikely, and an award that is refused costs no more than
a place."""
HORIZON = 48
"""Jobs that a plan looks ahead at the most: what comes after them can't start soon."""


class PlanPolicy:
    """See the module's head."""

    def __init__(self, view: View, backups: bool = True) -> None:
        self._view = view
        self._record = TrackRecord()
        self._backups = Backups(backups)
        self._outlook = Outlook(view, self._record, self._backups)
        self._paused_until_s = 0.0  # somewhere
        self._ends_at_s = 0.0  # what of the set has been awarded, as was bid
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
                    self._pause(known.full)
            case Refused(job, host, curve, lacking):
                known = self._host(host)
                known.read(curve, self._view.now())
                pause = known.lacking.setdefault(job.needs, Pause()) if lacking else known.full
                self._pause(pause)
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

    def _pause(self, pause: Pause) -> None:
        pause.begin(self._view.now())
        self._paused_until_s = max(self._paused_until_s, pause.until_s)

    def _host(self, name: str) -> KnownHost:
        return self._hosts.setdefault(name, KnownHost(name, 1))

    def _start_set(self, jobs: Sequence[Job], hosts: Sequence[HostFacts]) -> list[Effect]:
        if any(job.known for job in jobs):
            jobs = [job if job.known else structs.replace(job, work_s=UNSURE_FACTOR * job.work_s) for job in jobs]
        self._pending = deque(sorted(jobs, key=lambda job: -job.work_s))
        self._avoid.clear()
        self._backups.forget()
        self._ends_at_s = 0.0
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
            self._hosts[host].is_news = True
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
        outlook = self._outlook
        outlook.begin(self._hosts, now, self._pending[0].work_s if self._pending else TYPICAL_WORK_S)
        held: Held | None = None
        holder = self._hosts.get(startable)
        if held_for is not None and holder is not None and holder.curve is not None:
            outlook.hold(holder)
            held = Held(startable, held_for.needs)
        wanted: dict[str, list[Job]] = {}
        effects, look_at = self._back_up(wanted, held, now)
        if any(isinstance(effect, BackUp) and effect.host == startable for effect in effects):
            startable, held = "", None
        left: list[Job] = []
        whole = self._ends_at_s - now
        roomy = outlook.open_slots >= ROOM_PER_JOB * len(self._pending)
        while self._pending and len(left) < HORIZON and (held or outlook.open_hosts):
            job = self._pending.popleft()
            best = self._best(job, held)
            if best is None:
                left.append(job)
                continue
            whole = max(whole, best.finish)
            if best.finish < SOON_SHARE * whole:
                avoided = self._avoid.get(job.number, ())
                best = outlook.soon_enough(job, SOON_SHARE * whole, held, avoided) or best
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
                at_once = roomy and host.open and host.name != startable and host.has_room_for_others(now)
                outlook.occupy(host, best.start + best.run)
                if not at_once:
                    if best.start > 0.0 or host.name != startable or held_for is not None:
                        wanted.setdefault(host.name, []).append(job)
                        left.append(job)
                        continue
                    startable = ""
            second = self._best(job, None, without=host.name)
            effects.append(self._begin(Award, job, best, second, now))
        self._pending.extendleft(reversed(left))
        self._want_more(wanted, skip=len(left))
        effects += self._waits(wanted, now)
        if self._paused_until_s > now and (self._pending or wanted):
            pauses = [pause.until_s for host in self._hosts.values() for pause in (host.full, *host.lacking.values())]
            effects += [WakeAt(until_s) for until_s in sorted(pauses) if until_s > now][:1]
        look_at = min(look_at, self._backups.next_look_s(now, not self._pending))
        if self._pending and any(host.places for host in self._hosts.values()):
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
        self._backups.begin(Run(job, host.name, now, best.finish, sending, work, host.speed))
        self._ends_at_s = max(self._ends_at_s, now + best.finish)
        host.is_news = True
        self._outlook.awarded(host)
        return kind(job, host.name, best.cost, best.finish, True, others[0], others[1], slowness, others[2])

    def _back_up(self, wanted: dict[str, list[Job]], held: Held | None, now: float) -> tuple[list[Effect], float]:
        """Copies of what is worth one, before anything else gets a slot; and when what is overdue will be."""
        look_at = math.inf
        effects: list[Effect] = []
        speeds = {host.name: host.speed for host in self._outlook.known}
        for late, most_s in self._backups.worth(now, not self._pending, speeds):
            job = late.job
            best = self._best(job, held, without=late.host)
            if best is None:
                continue
            host = best.host
            if best.finish > most_s:
                if late.overdue_at_s <= now:
                    look_at = min(look_at, late.worth_at_s(best.finish))
            elif held is not None and held.fits(host.name, job):
                held = None
                effects.append(self._begin(BackUp, job, best, None, now))
            elif host.lacks(job, now):
                continue
            elif host.open and host.curve is not None and host.has_room_for_others(now, host.curve.valid_s):
                effects.append(self._begin(BackUp, job, best, None, now))
            else:
                self._outlook.occupy(host, best.start + best.run)
                wanted.setdefault(host.name, []).append(job)
        return effects, look_at

    def _want_more(self, wanted: dict[str, list[Job]], skip: int) -> None:
        """What can't start yet may still wait at the hosts of the plan. Where actions run and all are ours there is no
        need: their end brings a fresh curve."""
        if len(self._pending) <= skip or self._outlook.open_hosts:
            return  # or what comes after the horizon is next
        shared = {
            host.name
            for host in self._outlook.known
            if not host.places
            and host.curve is not None
            and (not host.ours or host.curve.waiting or host.curve.running > host.ours)
        }
        if not shared:
            return
        for job in islice(self._pending, skip, skip + 2 * len(self._outlook.known)):
            best = self._best(job, None)
            if best is not None:
                self._outlook.occupy(best.host, best.start + best.run)
                if best.host.name in shared:
                    wanted.setdefault(best.host.name, [job])

    def _waits(self, wanted: dict[str, list[Job]], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for name, jobs in wanted.items():
            host = self._hosts[name]
            if host.full.until_s > now:
                continue  # it would decline again at once, and we ask again at once
            # One place in the queue for each slot that is free, or one for the next that comes free.
            due: Counter[object] = Counter()
            for job in jobs[: max(host.free_slots - host.taken, 1)]:
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
        if host.free_slots - host.taken > 1 or curve.running + curve.waiting > host.ours + 1 or host.places:
            return None
        self._outlook.begin(self._hosts, now, self._pending[0].work_s)
        best = self._best(self._pending[0], None)
        return None if best is None else [self._begin(Award, self._pending.popleft(), best, None, now)]

    def _best(self, job: Job, held: Held | None, without: str = "") -> Choice | None:
        return self._outlook.best(job, held, self._avoid.get(job.number, ()), without)
