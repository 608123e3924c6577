"""What a server tells of itself beside its prices: the structures of STATUS_REPLY."""

from msgspec import Struct


class Occupant(Struct, frozen=True):
    """Who has a slot. `user` is who the client has proved to be, or says it is; `client` and `label` are what it says
    of itself and of its action. `elapsed_s` is since it got the slot (seconds)."""

    slot: int
    user: str
    client: str
    label: str
    elapsed_s: float


class StoreUse(Struct, frozen=True):
    """Inputs that the store had, and that had to be sent, since the server started: files and bytes of each."""

    hits: int
    misses: int
    hit_bytes: int
    missed_bytes: int


class Space(Struct, frozen=True):
    """A resource, in bytes: what is free of how much."""

    free_bytes: int
    total_bytes: int
