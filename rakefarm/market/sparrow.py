"""Batch sampling with late binding: ask nobody for a price, stand in a few queues, go where a slot is free first.

After Ousterhout, Wendell, Zaharia, Stoica, "Sparrow: Distributed, Low Latency Scheduling" (SOSP 2013). For the actions
of a set places are taken in twice as many queues, of hosts drawn at random; which action a place is for is decided only
when its turn has come, so that none waits behind a long one while another host is idle. Here a place is a Wait, and its
turn a slot that is held for us; a place that is not needed any more is given up when its turn comes. Prices play no
part: what is awarded is predicted from the curve that comes with the slot.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from rakefarm.market.curve import Curve, rate
from rakefarm.market.policy import (
    Award,
    Declined,
    Effect,
    Event,
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

PROBES = 2
"""Queues for each action; the paper's d, which found 2 to be enough."""
SLOTS_AHEAD = 2
"""Actions that have places in queues at one time, for each slot of the farm: each place is a connection."""
PAUSE_S = 0.2
"""Until a host that declined for the moment is tried again."""


class SparrowPolicy:
    """See the module's head."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._hosts: dict[str, HostFacts] = {}
        self._pending: deque[Job] = deque()
        self._fresh: set[int] = set()  # pending jobs that no places have been taken for
        self._places: Counter[tuple[str, object]] = Counter()  # in queues, by host and task
        self._avoid: dict[int, set[str]] = {}
        self._refuses: set[tuple[str, object]] = set()  # hosts and tasks, for good
        self._paused: set[tuple[str, object]] = set()  # the same, for the moment

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in what happened; answers what is to be done."""
        effects: list[Effect] = []
        match event:
            case SetStarted(jobs, hosts):
                self._hosts = {facts.name: facts for facts in hosts}
                self._pending = deque(jobs)
                self._fresh = {job.number for job in jobs}
                self._places.clear()
                self._avoid.clear()
                self._paused.clear()
            case SlotFree(host, curve, job):
                self._leave(host, job)
                effects += self._use(host, curve, job.task)
            case Declined(job, host, lasting):
                self._leave(host, job)
                (self._refuses if lasting else self._paused).add((host, job.task))
                if not lasting:
                    effects.append(WakeAt(self._view.now() + PAUSE_S))
            case Refused(job, host) | Lost(job, host):
                self._avoid.setdefault(job.number, set()).add(host)
                self._pending.append(job)
                self._fresh.add(job.number)
            case Quoted(job, host):  # who runs us has asked again where all had declined
                self._paused.discard((host, job.task))
                self._refuses.discard((host, job.task))
            case Withdrawn(job):
                self._pending = deque(pending for pending in self._pending if pending.number != job.number)
            case HostUp(facts):
                self._hosts[facts.name] = facts
            case HostDown(host):
                self._hosts.pop(host, None)
                self._places = Counter({place: count for place, count in self._places.items() if place[0] != host})
            case Woken():
                self._paused.clear()
        return [*effects, *self._probe()]

    def _leave(self, host: str, job: Job) -> None:
        self._places[host, job.task] = max(0, self._places[host, job.task] - 1)

    def _use(self, host: str, curve: Curve, task: object) -> list[Effect]:
        """The first job that may run in the slot that is held there."""
        job = next((job for job in self._pending if job.task == task and self._may_run(job, host)), None)
        if job is None:
            return []
        self._pending.remove(job)
        self._fresh.discard(job.number)
        seconds = max(job.work_s / rate(curve.speed, curve.cores, curve.busy, curve.running + 1), 1e-6)
        seconds += self._view.transfer_s(job, host)
        return [Award(job, host, seconds, seconds)]

    def _may_run(self, job: Job, host: str) -> bool:
        avoided = self._avoid.get(job.number, set())
        return (host, job.task) not in self._refuses and (host not in avoided or avoided >= self._hosts.keys())

    def _probe(self) -> list[Effect]:
        """Places for the jobs that have none yet, and for those whose places came to nothing."""
        most = SLOTS_AHEAD * max(1, sum(facts.slots for facts in self._hosts.values()))
        jobs = [job for job, _ in zip(self._pending, range(most), strict=False)]
        open_places: Counter[object] = Counter()
        for (_, task), count in self._places.items():
            open_places[task] += count
        effects: list[Effect] = []
        waiting: Counter[object] = Counter()
        for job in jobs:
            waiting[job.task] += 1
            lacking = PROBES if job.number in self._fresh else waiting[job.task] - open_places[job.task]
            for host in self._draw(job, min(PROBES, lacking)):
                self._places[host, job.task] += 1
                open_places[job.task] += 1
                effects.append(Wait(host, job))
                self._fresh.discard(job.number)
        return effects

    def _draw(self, job: Job, count: int) -> Iterable[str]:
        """So many different hosts at random, of those that may run the job now."""
        names = [name for name in self._hosts if self._may_run(job, name) and (name, job.task) not in self._paused]
        for _ in range(min(count, len(names))):
            yield names.pop(int(self._view.random() * len(names)))
