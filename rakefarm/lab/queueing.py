"""The supermarket model, with a fresh or a stale board: n servers, Poisson arrivals, exponential service, first come
first served. Time is in mean services.

A customer's time in the system follows from the queue that it joins, so each server keeps the departure times of who is
there, and a customer is one step: departures before now leave, the shortest candidate is joined.
"""

from collections import deque
from enum import Enum

import numpy as np

CUSTOMERS = 500_000
WARM_UP = 0.2
"""Share of the customers that is not counted: they met an empty system."""


class Rule(Enum):
    """By what a stale board is read."""

    LEAST = "least loaded of all"
    TWO = "shorter of two"
    INTERPRET = "water filling of what has arrived since"


def mean_time(servers: int, load: float, choices: int, seed: int) -> float:
    """The mean time in the system of who joins the shortest of so many queues, drawn at random (with replacement)."""
    chance = np.random.default_rng((seed, servers, choices, round(load * 1000)))
    if choices == 1:
        return _alone(servers, load, chance)
    gaps = chance.exponential(1.0 / (load * servers), CUSTOMERS).tolist()
    services = chance.exponential(1.0, CUSTOMERS).tolist()
    drawn = chance.integers(0, servers, (CUSTOMERS, choices)).tolist()
    queues: list[deque[float]] = [deque() for _ in range(servers)]
    now, total, counted = 0.0, 0.0, 0
    for number, candidates in enumerate(drawn):
        now += gaps[number]
        best = queues[candidates[0]]
        for candidate in candidates:
            queue = queues[candidate]
            while queue and queue[0] <= now:
                queue.popleft()
            if len(queue) < len(best):
                best = queue
        end = (best[-1] if best else now) + services[number]
        best.append(end)
        if number >= WARM_UP * CUSTOMERS:
            total += end - now
            counted += 1
    return total / counted


def _alone(servers: int, load: float, chance: np.random.Generator) -> float:
    """Each server has customers of its own, whose times vary for so long that many more are needed: Lindley's recursion
    of waiting times, all servers at once."""
    waits, total = np.zeros(servers), 0.0
    steps = CUSTOMERS // 5
    for step in range(steps):
        services = chance.exponential(1.0, servers)
        if step >= WARM_UP * steps:
            total += float((waits + services).mean())
        waits = np.maximum(waits + services - chance.exponential(1.0 / load, servers), 0.0)
    return total / (steps - WARM_UP * steps)


def stale_mean_time(servers: int, load: float, period: float, rule: Rule, seed: int) -> float:
    """The same when all that is known of the queues is a board that is renewed every `period`."""
    customers = CUSTOMERS // 2
    chance = np.random.default_rng((seed, servers, round(period * 1000)))
    gaps = chance.exponential(1.0 / (load * servers), customers).tolist()
    services = chance.exponential(1.0, customers).tolist()
    lots = chance.random((customers, 2)).tolist()
    queues: list[deque[float]] = [deque() for _ in range(servers)]
    board = _Board(servers, load, rule)
    now, total, counted, renewed = 0.0, 0.0, 0, -period
    for number in range(customers):
        now += gaps[number]
        if now - renewed >= period:
            renewed = now - now % period
            for queue in queues:
                while queue and queue[0] <= renewed:
                    queue.popleft()
            board.renew([len(queue) for queue in queues])
        queue = queues[board.choose(lots[number], now - renewed)]
        while queue and queue[0] <= now:
            queue.popleft()
        end = (queue[-1] if queue else now) + services[number]
        queue.append(end)
        if number >= WARM_UP * customers:
            total += end - now
            counted += 1
    return total / counted


class _Board:
    """Queue lengths as they were, and how a customer chooses by them."""

    def __init__(self, servers: int, load: float, rule: Rule) -> None:
        self._servers = servers
        self._load = load
        self._rule = rule
        self._lengths: list[int] = [0] * servers
        self._order: list[int] = []
        self._shortest = 1
        self._filled: list[tuple[float, int]] = []

    def renew(self, lengths: list[int]) -> None:
        """What it says from now on."""
        self._lengths = lengths
        self._order = sorted(range(self._servers), key=lengths.__getitem__)
        least = lengths[self._order[0]]
        self._shortest = sum(length == least for length in lengths)
        self._filled = self._levels()

    def _levels(self) -> list[tuple[float, int]]:
        """After how long the arrivals since have filled the k shortest queues up to the next: Dahlin's aggressive
        rule. Arrivals come at rate load × servers."""
        levels, water = [], 0.0
        sizes = [self._lengths[server] for server in self._order]
        for count in range(1, self._servers):
            water += count * (sizes[count] - sizes[count - 1])
            levels.append((water / (self._load * self._servers), count))
        return [*levels, (float("inf"), self._servers)]

    def choose(self, lots: list[float], age: float) -> int:
        """A server, by two numbers from 0 to 1 and how old the board is."""
        if self._rule is Rule.LEAST:
            return self._order[int(lots[0] * self._shortest)]
        if self._rule is Rule.TWO:
            one, other = (int(lot * self._servers) for lot in lots)
            return one if self._lengths[one] <= self._lengths[other] else other
        count = next(count for until, count in self._filled if age < until)
        return self._order[int(lots[0] * count)]
