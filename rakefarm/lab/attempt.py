"""An award of an action to a host, as a record: what metrics, plots and `actions.jsonl` are made of."""

from msgspec import Struct


class Attempt(Struct):
    """An award, and what came of it. Times in seconds, -1: it never came to that; `known_s` is the work that the policy
    was told of."""

    client: int
    action: int
    set: int
    signature: str
    host: str
    work_s: float
    known_s: float
    placed_s: float
    price: float
    bid_s: float
    backup: bool
    herded: bool
    sample_age_s: float
    started_s: float = -1.0
    ended_s: float = -1.0
    told_s: float = -1.0
    outcome: str = ""
