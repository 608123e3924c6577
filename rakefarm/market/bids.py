"""The bids that come with rakefarm, by name: of what parts a server makes its price.

Only the price is theirs. What a server predicts (seconds and curve) and what it refuses stay as they are, so that a bid
can't make it run what it must not. `finish` is the default, and what the others are held against: simple ones, as they
are often met. A lab's own are found through the entry points `rakefarm.bids`. All are functions of a `Situation` alone.
"""

from collections.abc import Mapping

from rakefarm.market.bid import Situation, TermsOf, finish_terms, work_of

DEFAULT = "finish"


def flat_terms(now: Situation) -> dict[str, float]:
    """The predicted seconds and nothing else: no surcharges, all kinds alike."""
    return {"run": now.run_s, "wait": now.wait_s} if now.wait_s else {"run": now.run_s}


def load_average_terms(now: Situation) -> dict[str, float]:
    """The work, dearer by the load average of the last minute for each core. It moves late, and is everyone's."""
    work_s = work_of(now.job, now.k)
    return {"work": work_s, "load": work_s * now.load.load_average / now.load.cores}


def cpu_terms(now: Situation) -> dict[str, float]:
    """The work, at most twice as dear when every core is busy: what psutil's CPU per cent says."""
    work_s = work_of(now.job, now.k)
    return {"work": work_s, "cpu": work_s * min(1.0, now.load.busy_in_all / now.load.cores)}


BIDS: Mapping[str, TermsOf] = {
    DEFAULT: finish_terms,
    "flat": flat_terms,
    "load-average": load_average_terms,
    "cpu": cpu_terms,
}
