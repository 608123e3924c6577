"""Two systems in small, to find again what their papers found: Sparrow's sampling, and Prequal's choice of replicas."""

import heapq
from collections import deque
from collections.abc import Callable

import numpy as np

WORKERS = 1000
TASKS_A_JOB = 100
JOBS = 500
LOAD = 0.8
PROBES = 2
PREQUAL_FACTOR = 10.0


def sparrow_means(seed: int) -> dict[str, float]:
    """Mean response of jobs of 100 tasks, exponential with mean 1, from worst to best: random, per-task sampling, batch
    sampling, late binding; and an omniscient scheduler."""
    chance = np.random.default_rng(seed)
    times = np.cumsum(chance.exponential(TASKS_A_JOB / (LOAD * WORKERS), JOBS)).tolist()
    works = chance.exponential(1.0, (JOBS, TASKS_A_JOB)).tolist()
    probes = chance.integers(0, WORKERS, (JOBS, TASKS_A_JOB, PROBES)).tolist()
    batches = [chance.choice(WORKERS, PROBES * TASKS_A_JOB, replace=False).tolist() for _ in range(JOBS)]
    return {
        "random": _queued(times, works, lambda job, queues: [each[0] for each in probes[job]]),
        "per task": _queued(times, works, lambda job, queues: _per_task(probes[job], queues)),
        "batch": _queued(times, works, lambda job, queues: _batch(batches[job], queues)),
        "late": _late(times, works, batches),
        "ideal": _ideal(times, works),
    }


Queues = list[deque[float]]


def _queued(times: list[float], works: list[list[float]], place: Callable[[int, Queues], list[int]]) -> float:
    queues: Queues = [deque() for _ in range(WORKERS)]
    responses = []
    for job, now in enumerate(times):
        for queue in queues:
            while queue and queue[0] <= now:
                queue.popleft()
        last = now
        for worker, work in zip(place(job, queues), works[job], strict=True):
            queue = queues[worker]
            queue.append((queue[-1] if queue else now) + work)
            last = max(last, queue[-1])
        responses.append(last - now)
    return _settled_mean(responses)


def _per_task(probes: list[list[int]], queues: Queues) -> list[int]:
    """Each task to the shorter of its two queues, as they stood when they were asked: all at once, so no task sees
    those of its own job."""
    return [min(pair, key=lambda worker: len(queues[worker])) for pair in probes]


def _batch(batch: list[int], queues: Queues) -> list[int]:
    """The shortest of all queues that were asked."""
    return sorted(batch, key=lambda worker: len(queues[worker]))[:TASKS_A_JOB]


def _late(times: list[float], works: list[list[float]], batches: list[list[int]]) -> float:
    """A place in each queue; whoever's turn comes first gets the next task, and what is left over is dropped."""
    waiting: list[deque[int]] = [deque() for _ in range(WORKERS)]
    busy = [False] * WORKERS
    left = [list(reversed(each)) for each in works]
    ends = [0.0] * len(times)
    # When, which worker is free; -1: a job comes.
    events: list[tuple[float, int, int]] = [(now, -1, job) for job, now in enumerate(times)]

    def serve(worker: int, now: float) -> None:
        while waiting[worker]:
            job = waiting[worker].popleft()
            if left[job]:
                end = now + left[job].pop()
                ends[job] = max(ends[job], end)
                busy[worker] = True
                heapq.heappush(events, (end, worker, job))
                return
        busy[worker] = False

    while events:
        now, worker, job = heapq.heappop(events)
        if worker >= 0:
            serve(worker, now)
            continue
        for asked in batches[job]:
            waiting[asked].append(job)
            if not busy[asked]:
                serve(asked, now)
    return _settled_mean([end - now for end, now in zip(ends, times, strict=True)])


def _ideal(times: list[float], works: list[list[float]]) -> float:
    """One queue for all workers: no task waits while any of them is idle."""
    free = [0.0] * WORKERS
    responses = []
    for now, tasks in zip(times, works, strict=True):
        last = now
        for work in tasks:
            end = max(now, heapq.heappop(free)) + work
            heapq.heappush(free, end)
            last = max(last, end)
        responses.append(last - now)
    return _settled_mean(responses)


def _settled_mean(responses: list[float]) -> float:
    return float(np.mean(responses[len(responses) // 5 :]))


# --- Prequal --------------------------------------------------------------------------------------------

REPLICAS = 100
REQUESTS = 60_000
UTILISATION = 0.75
CPU_PERIOD = 1.0
"""How old a share of busy processor may be: it is an average over a window, and told once in it."""
HOT_QUANTILE = 0.84
SAMPLE = 3


def prequal_tails(seed: int) -> dict[str, float]:
    """The 99th percentile of latency with both rules. Antagonists leave some replicas a fifth of their speed, which who
    balances processor use does not see. Latency is conditioned on requests in flight, as the paper has it: what a
    request would take now is what is in flight there, times what each took lately."""
    return {rule: _prequal_tail(rule, seed) for rule in ("cpu", "prequal")}


def _prequal_tail(rule: str, seed: int) -> float:
    chance = np.random.default_rng((seed, 7))
    speeds = np.where(chance.random(REPLICAS) < 0.2, 0.2, 1.0)
    rate = UTILISATION * speeds.sum()
    gaps = chance.exponential(1.0 / rate, REQUESTS).tolist()
    works = chance.exponential(1.0, REQUESTS).tolist()
    drawn = chance.integers(0, REPLICAS, (REQUESTS, SAMPLE)).tolist()
    queues: Queues = [deque() for _ in range(REPLICAS)]
    took = [1.0 / speed for speed in speeds.tolist()]  # seconds a request, as seen lately
    used, board, told = [0.0] * REPLICAS, [0.0] * REPLICAS, 0.0
    now, latencies = 0.0, []
    for number, sample in enumerate(drawn):
        now += gaps[number]
        if now - told >= CPU_PERIOD:
            board, used, told = [each / (now - told) for each in used], [0.0] * REPLICAS, now
        for replica in sample:
            queue = queues[replica]
            while queue and queue[0] <= now:
                queue.popleft()
        replica = min(sample, key=board.__getitem__) if rule == "cpu" else _hot_cold(sample, queues, took)
        queue, service = queues[replica], works[number] / float(speeds[replica])
        end = (queue[-1] if queue else now) + service
        queue.append(end)
        used[replica] += works[number]  # what it uses of a processor, which an antagonist shares
        took[replica] += 0.2 * (service - took[replica])
        latencies.append(end - now)
    return float(np.percentile(latencies[REQUESTS // 5 :], 99))


def _hot_cold(sample: list[int], queues: Queues, took: list[float]) -> int:
    """Of the cold ones (fewer in flight than most) the soonest; when all are hot, the one with the fewest."""
    lengths = sorted(len(queue) for queue in queues)
    hot = max(lengths[int(HOT_QUANTILE * len(lengths))], 1)
    cold = [replica for replica in sample if len(queues[replica]) < hot]
    if cold:
        return min(cold, key=lambda replica: (len(queues[replica]) + 1) * took[replica])
    return min(sample, key=lambda replica: len(queues[replica]))
