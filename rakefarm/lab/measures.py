"""What a run amounts to, as one flat row. Times in seconds; every number is the same whenever the run is repeated."""

from msgspec import Struct

from rakefarm.lab.attempt import Attempt
from rakefarm.lab.clairvoyant import client_bound_s, list_schedule_s, lower_bound_s
from rakefarm.lab.draw import Drawn
from rakefarm.lab.world import Outcome
from rakefarm.market.statistics import fairness, median, median_error, rank_correlation


class Reference(Struct, frozen=True):
    """What the makespan of a drawn scenario is held against: one for all policies."""

    schedule_s: float
    bound_s: float
    clients_s: tuple[float, ...]


class Measures(Struct, frozen=True):
    """`ratio` is makespan over the clairvoyant list schedule, `bound_ratio` over the lower bound; `herd` the share of
    awards to a full host while another had a free slot; `messages` an action, without files and signs of life; `jain`
    how even clients fared against what each could reach alone; `bid_error` the median of |bid - realised| / realised
    and `rank` Spearman's correlation of the two; `sample_age_s` how old the loads were that awards rested on (mean)."""

    makespan_s: float
    reference_s: float
    bound_s: float
    ratio: float
    bound_ratio: float
    herd: float
    messages: float
    jain: float
    bid_error: float | None
    rank: float | None
    sample_age_s: float
    actions: int
    awards: int
    copies: int
    lost: int
    events: int


def refer(drawn: Drawn) -> Reference:
    """The references of a drawn scenario."""
    clients = tuple([client_bound_s(drawn, client) - client.arrives_s for client in drawn.clients])
    return Reference(list_schedule_s(drawn), lower_bound_s(drawn), clients)


def measure(drawn: Drawn, reference: Reference, outcome: Outcome) -> Measures:
    """What the run amounts to."""
    makespan_s = max(outcome.ended_s)
    actions = sum(len(actions) for client in drawn.clients for actions in client.sets)
    pairs = bids_against_times(outcome.attempts)
    took_s = [end_s - client.arrives_s for end_s, client in zip(outcome.ended_s, drawn.clients, strict=True)]
    even = None
    if not outcome.lost:
        even = fairness([took / bound for took, bound in zip(took_s, reference.clients_s, strict=True)])
    awards = max(len(outcome.attempts), 1)
    return Measures(
        makespan_s=makespan_s,
        reference_s=reference.schedule_s,
        bound_s=reference.bound_s,
        ratio=makespan_s / reference.schedule_s,
        bound_ratio=makespan_s / reference.bound_s,
        herd=sum(attempt.herded for attempt in outcome.attempts) / awards,
        messages=outcome.messages / actions,
        jain=even or 0.0,
        bid_error=median_error(pairs),
        rank=rank_correlation(pairs),
        sample_age_s=sum(attempt.sample_age_s for attempt in outcome.attempts) / awards,
        actions=actions,
        awards=len(outcome.attempts),
        copies=outcome.copies,
        lost=outcome.lost,
        events=outcome.events,
    )


def bids_against_times(attempts: tuple[Attempt, ...]) -> list[tuple[float, float]]:
    """What winning bids said and what it took, of what succeeded."""
    return [(each.bid_s, each.told_s - each.placed_s) for each in attempts if each.outcome == "succeeded"]


def summary_of(values: list[float]) -> tuple[float, float]:
    """Median and 95th percentile (the least value that 95 % do not exceed)."""
    ordered = sorted(values)
    return median(ordered), ordered[min(len(ordered) - 1, -(-95 * len(ordered) // 100) - 1)]
