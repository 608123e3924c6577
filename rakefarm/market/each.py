"""Policies that decide about one action at a time, from the answers of the hosts that they asked for it.

`lowest` is the textbook rule: before each action every host is asked, the lowest price wins, and among equals the first
reply. It asks for one action at a time, so that each quote sees the places taken before it; `lowest-burst` asks for all
that may run at once, and shows what comes of that. The others are here to be compared with: what other farms and load
balancers do, in their simplest form. Actions queue at their host when it is full, as they do there.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct, field

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
    View,
    WakeAt,
    Withdrawn,
    Woken,
)

PAUSE_S = 0.2
"""Until a job that nobody would take is offered again."""
Choose = Callable[[View, Sequence[Quoted]], int]
"""The index of the answer that wins; answers stand in order of arrival, there is at least one."""


class _Auction(Struct):
    """A job that hosts have been asked for: who has not answered yet, and the bids."""

    job: Job
    open: set[str]
    bids: list[Quoted] = field(default_factory=list)


class EachPolicy:
    """Asks for each action, all hosts or a `sample` of them, one action at a time or in a `burst`."""

    def __init__(self, view: View, choose: Choose, sample: int = 0, burst: bool = False) -> None:
        self._view = view
        self._choose = choose
        self._sample = sample
        self._burst = burst
        self._hosts: dict[str, HostFacts] = {}
        self._pending: list[Job] = []
        self._auctions: dict[int, _Auction] = {}
        self._running: dict[int, str] = {}
        self._avoid: dict[int, set[str]] = {}
        self._unwanted: list[Job] = []  # nobody has bid for them

    def handle(self, event: Event) -> Sequence[Effect]:
        """Take in what happened; answers what is to be done."""
        awards: list[Effect] = []
        match event:
            case SetStarted(jobs, hosts):
                self._pending = list(reversed(jobs))
                self._hosts = {facts.name: facts for facts in hosts}
                self._avoid.clear()
            case Quoted(job, host):
                awards = self._answered(job.number, host, event)
            case Declined(job, host):
                awards = self._answered(job.number, host, None)
            case Finished(job):
                self._running.pop(job.number, None)
            case Refused(job, host) | Lost(job, host):
                self._running.pop(job.number, None)
                self._avoid.setdefault(job.number, set()).add(host)
                self._pending.append(job)
            case Withdrawn(job):
                self._auctions.pop(job.number, None)
                self._pending = [pending for pending in self._pending if pending.number != job.number]
                self._unwanted = [unwanted for unwanted in self._unwanted if unwanted.number != job.number]
            case HostUp(facts):
                self._hosts[facts.name] = facts
            case Woken():
                self._pending[:0] = self._unwanted
                self._unwanted.clear()
            case HostDown(host):
                self._hosts.pop(host, None)
                for number in list(self._auctions):
                    awards += self._answered(number, host, None)
        return [*awards, *self._ask_next()]

    def _ask_next(self) -> list[Effect]:
        most = sum(facts.slots for facts in self._hosts.values())
        asks: list[Effect] = []
        while self._pending and len(self._running) + len(self._auctions) < most and (self._burst or not self._auctions):
            job = self._pending.pop()
            avoided = self._avoid.get(job.number, set())
            names = [name for name in self._hosts if name not in avoided] or list(self._hosts)
            if self._sample:
                names = self._pick(names)
            self._auctions[job.number] = _Auction(job, set(names))
            asks.append(Ask(job, tuple(names)))
        return asks

    def _pick(self, names: list[str]) -> list[str]:
        """A random sample without replacement."""
        picked = []
        for _ in range(min(self._sample, len(names))):
            picked.append(names.pop(int(self._view.random() * len(names))))
        return picked

    def _answered(self, number: int, host: str, bid: Quoted | None) -> list[Effect]:
        auction = self._auctions.get(number)
        if auction is None or host not in auction.open:
            return []
        auction.open.discard(host)
        if bid is not None:
            auction.bids.append(bid)
        if auction.open:
            return []
        del self._auctions[number]
        bids = [bid for bid in auction.bids if bid.host in self._hosts]
        if not bids:
            # Nobody of those asked: another sample, or whoever is left, may, in a while.
            self._unwanted.append(auction.job)
            return [WakeAt(self._view.now() + PAUSE_S)]
        won = bids[self._choose(self._view, bids)]
        self._running[number] = won.host
        # Whatever the rule, the one to compare with is the cheapest of the others.
        others = [bid for bid in bids if bid is not won]
        second = others[lowest(self._view, others)] if others else None
        return [
            Award(
                auction.job,
                won.host,
                won.price,
                won.seconds,
                start_now=False,
                runner_up=second.host if second else "",
                runner_up_price=second.price if second else None,
            )
        ]


def lowest(view: View, bids: Sequence[Quoted]) -> int:
    """The lowest price, with the cost of sending; among equals the first reply."""
    costs = [bid.price + view.transfer_s(bid.job, bid.host) for bid in bids]
    return costs.index(min(costs))


def at_random(view: View, bids: Sequence[Quoted]) -> int:
    """Any host."""
    return int(view.random() * len(bids))


def random_by_cores(view: View, bids: Sequence[Quoted]) -> int:
    """Any host, each as often as it has cores."""
    mark = view.random() * sum(bid.curve.cores for bid in bids)
    for index, bid in enumerate(bids):
        mark -= bid.curve.cores
        if mark < 0:
            return index
    return len(bids) - 1


def first_host(view: View, bids: Sequence[Quoted]) -> int:
    """The first by name that has a free slot, else the first: a host list in order, as distcc walks it."""
    ordered = sorted(range(len(bids)), key=lambda index: bids[index].host)
    return next((index for index in ordered if bids[index].curve.free_slots), ordered[0])


def lowest_cpu(view: View, bids: Sequence[Quoted]) -> int:
    """The lowest share of busy processors, as last sampled: what psutil's CPU per cent says."""
    shares = [bid.curve.busy_in_all / bid.curve.cores for bid in bids]
    return shares.index(min(shares))


def lowest_load_average(view: View, bids: Sequence[Quoted]) -> int:
    """The lowest load average of the last minute for each core: what uptime(1) says, and many batch systems go by."""
    loads = [bid.curve.load_average / bid.curve.cores for bid in bids]
    return loads.index(min(loads))


def fewest_in_flight(view: View, bids: Sequence[Quoted]) -> int:
    """The fewest of the farm's commands, running or waiting, for each core."""
    loads = [(bid.curve.running + bid.curve.waiting) / bid.curve.cores for bid in bids]
    return loads.index(min(loads))


def prequal_like(view: View, bids: Sequence[Quoted]) -> int:
    """Of the sampled hosts that are cold (fewer commands than the median) the soonest; when all are hot, the coldest.
    After Wydrowski et al., "Load is not what you should balance" (NSDI 2024), with fresh probes and no pool."""
    in_flight = sorted(bid.curve.running + bid.curve.waiting for bid in bids)
    median = in_flight[len(in_flight) // 2]
    cold = [index for index, bid in enumerate(bids) if bid.curve.running + bid.curve.waiting < max(median, 1)]
    if cold:
        return min(cold, key=lambda index: bids[index].seconds)
    return fewest_in_flight(view, bids)


class RoundRobin:
    """Each host in turn, by name."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, view: View, bids: Sequence[Quoted]) -> int:
        """The host after the last one."""
        ordered = sorted(range(len(bids)), key=lambda index: bids[index].host)
        index = next((index for index in ordered if bids[index].host > self._last), ordered[0])
        self._last = bids[index].host
        return index
