"""The arithmetic of the market's benchmark, on plain data: attempts out of events, and what they amount to.

Work is in seconds of a core of speed 1, capacity in seconds of work a second; times are seconds of the monotonic
clock, which is one for all processes of a machine.
"""

import heapq
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

LOCAL = "local"
Record = Mapping[str, Any]
"""One line of a client's `--json`."""


@dataclass(frozen=True)
class Attempt:
    """An action's award to a host, and until when it took a slot there; `predicted_s` is what the winning bid said."""

    host: str
    tag: str
    placed_s: float
    ended_s: float
    predicted_s: float | None = None
    succeeded: bool = False


@dataclass(frozen=True)
class Interval:
    """When a command truly ran, in seconds of the monotonic clock."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class Capacity:
    """What a farm can do: steps (start in seconds, capacity from then on), the first at 0, and its fastest core."""

    steps: tuple[tuple[float, float], ...]
    fastest: float

    def seconds_for(self, work: float) -> float:
        """How long the whole farm takes for this much work, perfectly divided. Infinite when it never ends."""
        for (start, capacity), (end, _) in pairwise((*self.steps, (float("inf"), 0.0))):
            if work <= capacity * (end - start) and capacity > 0:
                return start + work / capacity
            if capacity > 0:
                work -= capacity * (end - start)
        return float("inf")


Sets = Sequence[Sequence[float]]
"""The work of each action of each set of one client."""


def client_bound(sets: Sets, capacity: Capacity) -> float:
    """The least time of a client that has the farm for itself: its sets run one after the other."""
    return sum(max(max(works) / capacity.fastest, sum(works) / capacity.steps[0][1]) for works in sets if works)


def lower_bound(clients: Sequence[Sets], capacity: Capacity) -> float:
    """The least makespan of clients that start together: by all the work there is, and by the longest client."""
    total = sum(sum(works) for sets in clients for works in sets)
    return max(capacity.seconds_for(total), *(client_bound(sets, capacity) for sets in clients))


def attempts_of(records: Iterable[Record]) -> list[Attempt]:
    """The awards of one client's events that went to a host of the farm, each ended by a retry, a copy or the action's
    end."""
    quoted: dict[tuple[int, str], float] = {}
    commands: dict[int, str] = {}
    open_awards: dict[tuple[int, str], Attempt] = {}
    attempts: list[Attempt] = []

    def close(action: int, host: str | None, ended_s: float, won_by: str = "") -> None:
        for key in [key for key in open_awards if key[0] == action and host in (None, key[1])]:
            attempt = open_awards.pop(key)
            attempts.append(replace(attempt, ended_s=ended_s, succeeded=attempt.host == won_by))

    last_s = 0.0
    for record in records:
        last_s, action, host = record["time_s"], record.get("action"), record.get("host", "")
        match record["event"]:
            case "action_queued":
                commands[action] = record["command"]
            case "quote_received" if record["seconds"] is not None:
                quoted[action, host] = record["seconds"]
            case "action_placed" if host != LOCAL:
                close(action, host, last_s)
                tag = commands[action].split()[-1]
                predicted = record.get("seconds", quoted.get((action, host)))
                open_awards[action, host] = Attempt(host, tag, last_s, last_s, predicted)
            case "action_retried" | "copy_ended":
                close(action, host, last_s)
            case "action_finished":
                close(action, None, last_s, host if record["outcome"] == "succeeded" else "")
    for action, _ in list(open_awards):
        close(action, None, last_s)
    return attempts


def until_truly_free(attempt: Attempt, worked: Mapping[tuple[str, str], Sequence[Interval]]) -> Attempt:
    """The attempt, ended when its command did: the slot is free from then on, before the client knows."""
    for interval in worked.get((attempt.host, attempt.tag), []):
        if attempt.placed_s <= interval.end_s <= attempt.ended_s:
            return replace(attempt, ended_s=interval.end_s)
    return attempt


def herd_index(attempts: Iterable[Attempt], slots: Mapping[str, int], died_s: Mapping[str, float]) -> float:
    """The share of awards that found their host full while another, not yet dead, had a free slot."""
    ends: dict[str, list[float]] = {host: [] for host in slots}
    awards = herded = 0
    for attempt in sorted(attempts, key=lambda each: each.placed_s):
        for taken in ends.values():
            while taken and taken[0] <= attempt.placed_s:
                heapq.heappop(taken)
        if len(ends[attempt.host]) >= slots[attempt.host]:
            herded += any(
                len(taken) < slots[host] and attempt.placed_s < died_s.get(host, float("inf"))
                for host, taken in ends.items()
                if host != attempt.host
            )
        heapq.heappush(ends[attempt.host], attempt.ended_s)
        awards += 1
    return herded / awards if awards else 0.0


def jain_index(shares: Sequence[float]) -> float:
    """How even the shares are: 1 when they are all the same, 1 / n when one of n has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def bids_against_times(attempts: Iterable[Attempt]) -> list[tuple[float, float]]:
    """What winning bids predicted and what it took from the award to the result, for what succeeded; seconds."""
    return [
        (attempt.predicted_s, attempt.ended_s - attempt.placed_s)
        for attempt in attempts
        if attempt.succeeded and attempt.predicted_s is not None
    ]


def bid_error(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The median of |predicted - realised| / realised, or None without any."""
    errors = [abs(predicted - realised) / realised for predicted, realised in pairs if realised > 0]
    return statistics.median(errors) if errors else None


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's: the correlation of ranks, equals sharing theirs; None where one side never changes."""
    try:
        return statistics.correlation(_ranks([one for one, _ in pairs]), _ranks([other for _, other in pairs]))
    except statistics.StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [statistics.mean(places[value]) for value in values]
