"""What a plan is made on: when slots come free at each host, and what work costs there.

A plan is made at almost every event, so little is computed that it doesn't look at. A host's times are made when the
first job comes that would have to wait there; its speed is judged again when something happened there, or time alone
changes it. For each sort of job hosts are kept in the order of what a second of work costs there: from the first whose
work alone costs more than the best so far, none can be better.

What others do on a machine comes and goes. So the longer a job is, the less is made of what they do there now, and the
more of what they do on the farm's machines in the mean.
"""

import math
from bisect import insort
from collections.abc import Collection, Mapping

from rakefarm.market.backups import Backups
from rakefarm.market.choice import Choice, Held
from rakefarm.market.curve import LEAST_S, expected_s
from rakefarm.market.known_host import KnownHost
from rakefarm.market.policy import Job, View
from rakefarm.market.track_record import SHORTEST_S, TrackRecord

PATIENCE_S = 0.25
"""Who waits at a host for longer than this looks around again."""
TYPICAL_WORK_S = 0.5
LEAST_RUN_S = 1e-6
LOAD_LASTS_S = 5.0
"""For a job of this length what others do on the machine now weighs as much as what they do on all machines."""
LARGEST_CLAIM = 4.0
"""A host that says it is more than so many times as fast as the middle one is planned with as if it were such a one,
until it has shown that it is faster: more often than such machines are side by side, one of them is wrong."""
FEWEST = 3
"""Hosts, for one to be the middle one."""

_Entry = tuple[float, int, KnownHost, float]
"""What a second of work costs at a host at least; its place among hosts; the host; by how much its price exceeds its
seconds."""


class Outlook:
    """See the module's head. Times are seconds from the moment of the plan."""

    def __init__(self, view: View, record: TrackRecord, backups: Backups) -> None:
        self.open_hosts = 0
        """Hosts that have a free slot left for this plan."""
        self.open_slots = 0
        """Slots that were free when it began."""
        self.known: list[KnownHost] = []
        """Hosts that have said something of themselves."""
        self._view = view
        self._record = record
        self._backups = backups
        self._now = 0.0
        self._typical_work_s = TYPICAL_WORK_S
        self._orders: dict[object, list[_Entry]] = {}
        self._load = 0.0  # of others, on all hosts together: a share of the cores
        self._middle = 0.0  # what the middle one of the hosts says of its speed

    def begin(self, hosts: Mapping[str, KnownHost], now: float, typical_work_s: float) -> None:
        """A new plan: nothing is taken yet but what is."""
        self._now, self._typical_work_s = now, typical_work_s
        self._orders.clear()
        self.known = [host for host in hosts.values() if host.curve is not None]
        self.open_hosts = self.open_slots = 0
        if self.known:
            self._load = sum([host.load for host in self.known]) / len(self.known)
            self._middle = sorted([host.said for host in self.known])[(len(self.known) - 1) // 2]
        for host in self.known:
            if host.is_news or now >= host.judge_at_s or self._claims_much(host):
                self._judge(host)
            host.times = None
            host.placed.clear()
            host.counted = host.taken
            free = host.free_slots - host.taken
            if free <= 0 or host.full.until_s > now or self._waits_long(host):
                host.open = 0
            else:
                host.open = free
                self.open_hosts += 1
                self.open_slots += free

    def _claims_much(self, host: KnownHost) -> bool:
        return host.said > LARGEST_CLAIM * self._middle and len(self.known) >= FEWEST

    def _waits_long(self, host: KnownHost) -> bool:
        """Whatever it said: its slots are not free for us."""
        return host.places > 0 and self._now - host.waits_since > PATIENCE_S

    def _judge(self, host: KnownHost) -> None:
        """How fast it is, by its word and by what came of that."""
        said, now = self._middle if self._claims_much(host) else host.said, self._now
        runs = [(run.work_s, run.elapsed_s(now) - run.sending_s) for run in self._backups.at(host.name)]
        host.speed = self._record.speed(host.name, said, runs)
        host.note_rate()
        host.is_news = False
        # From the first time on at which a job there is late; what seems faster than it says does so less each moment.
        left_s = min(
            [work_s / said - elapsed_s for work_s, elapsed_s in runs if work_s >= SHORTEST_S], default=math.inf
        )
        host.judge_at_s = now if host.speed > said else now + left_s

    def _times(self, host: KnownHost) -> list[float]:
        """When each slot comes free that isn't, ascending, as its curve and our own awards since have it."""
        if host.times is not None:
            return host.times
        curve = host.curve
        assert curve is not None
        age = self._now - host.read_at
        # Who takes longer than it says also has its slots free later than it says.
        slowness = max(1.0, curve.speed / host.speed)
        times = [0.0] * host.free_slots
        for time in curve.free_in_s[host.free_slots :]:
            left = time * slowness - age
            times.append(left if left > LEAST_S else expected_s(left))
        times.sort()
        if self._waits_long(host):
            waited = self._now - host.waits_since
            times = [max(time, expected_s(-waited)) for time in times]
        run = self._typical_work_s / host.rate
        for _ in range(min(host.counted, 2 * len(times))):
            insort(times, times.pop(0) + run)
        if host.full.until_s > self._now:
            times = [max(time, host.full.until_s - self._now) for time in times]
        else:
            times = [time for time in times if time > 0.0]
        times = sorted(times + host.placed) or [0.0]
        host.times = times
        return times

    def hold(self, host: KnownHost) -> None:
        """A slot is held for us there: to others it is taken."""
        start = 0.0 if host.open else self._times(host)[0]
        self.occupy(host, start + self._typical_work_s / host.rate)

    def occupy(self, host: KnownHost, until: float) -> None:
        """The first slot that comes free there is taken until then."""
        if host.open:
            host.open -= 1
            if not host.open:
                self.open_hosts -= 1
            host.placed.append(until)
        else:
            times = self._times(host)
            times.pop(0)
            insort(times, until)

    def awarded(self, host: KnownHost) -> None:
        """One more action of ours is there, and so each gets less of it."""
        host.note_rate()
        self._orders.clear()

    def _order(self, task: object) -> list[_Entry]:
        order = self._orders.get(task)
        if order is None:
            order = []
            for index, host in enumerate(self.known):
                factor = host.factors.get(task)
                if factor is not None and task not in host.refuses:
                    order.append((max(factor, 1.0) / host.top_rate, index, host, max(factor - 1.0, 0.0)))
            order.sort()
            self._orders[task] = order
        return order

    def _run_s(self, job: Job, host: KnownHost) -> float:
        """How long the job would run there."""
        run = job.work_s / host.speed
        load = host.load + (self._load - host.load) * run / (run + LOAD_LASTS_S)
        return max(job.work_s / host.rate_beside(load), LEAST_RUN_S)

    def soon_enough(self, job: Job, latest: float, held: Held | None, avoided: Collection[str]) -> Choice | None:
        """The slowest host that has a slot now and where it would cost no more than `latest`."""
        if len(avoided) >= len(self.known):
            avoided = ()
        for unit, _, host, dearer in reversed(self._order(job.task)):
            if job.work_s * unit > latest or not (host.open or (held is not None and held.fits(host.name, job))):
                continue
            if host.name in avoided or host.lacks(job, self._now):
                continue
            run, transfer = self._run_s(job, host), self._view.transfer_s(job, host.name)
            finish = transfer + run
            if finish + run * dearer <= latest:
                return Choice(host, finish + run * dearer, 0.0, finish, run + transfer)
        return None

    def best(self, job: Job, held: Held | None, avoided: Collection[str] = (), without: str = "") -> Choice | None:
        """The host where the job finishes first, of all but `without` and, while there are others, those avoided."""
        if len(avoided) >= len(self.known):
            avoided = ()
        work_s, now = job.work_s, self._now
        best: KnownHost | None = None
        best_cost = math.inf
        best_start = best_finish = best_run = 0.0
        for unit, _, host, dearer in self._order(job.task):
            if work_s * unit >= best_cost:
                break
            name = host.name
            if name == without or name in avoided:
                continue
            if host.open or (held is not None and held.fits(name, job)):
                start = 0.0
            else:
                start = (host.times or self._times(host))[0]
            if host.lacking and host.lacks(job, now):
                start = max(start, host.lacking[job.needs].until_s - now)
            run = self._run_s(job, host)
            if start + run >= best_cost:
                continue
            transfer = self._view.transfer_s(job, name)
            finish = max(start, transfer) + run
            cost = finish + run * dearer
            if cost < best_cost:
                best, best_cost, best_start, best_finish, best_run = host, cost, start, finish, run + transfer
        return None if best is None else Choice(best, best_cost, best_start, best_finish, best_run)
