"""The price of a job on one server, as a pure function of what is known there at that moment.

    price   = base + congestion + waiting + memory + io_wait + resources + stale
    seconds = base + congestion + waiting

Every part is a named term and the terms add up, so that a person can see what made a host dear:

  - base        what this kind of command takes on one idle core here (seconds, a coefficient);
  - congestion  what sharing the cores adds: with k jobs of ours and b busy cores of others, each job runs at
                rate(k) = min(1, cores / (k + b)), so base / rate - base;
  - waiting     until a slot is free: jobs over the slots, each base / rate, `slots` of them at a time;
  - memory      rises as the memory left falls towards the floor, where the answer is a refusal;
  - io_wait     grows with the share of time the cores spend waiting for disks;
  - resources   what the action says it needs takes from others (cpu=2 counts as two jobs);
  - stale       a load sample older than a second makes the quote dear, not cheap: who doesn't know bids high.

Bytes to send are the client's to add: only it knows what it still has to send and how fast the wire is.
"""

from collections.abc import Mapping

from msgspec import Struct, field

GIB = 1 << 30
STALE_AFTER_S = 1.0


class Load(Struct, frozen=True):
    """A machine's load: core counts, busy cores (0 to cores), shares 0 to 1, bytes; `age_s` since it was read."""

    cores: int
    busy_cores: float
    io_wait: float
    memory_available: int
    memory_total: int
    age_s: float = 0.0


class Commitments(Struct, frozen=True):
    """What this server has promised: commands running, waiting for a slot, and places held by leases."""

    slots: int
    running: int
    waiting: int
    leased: int

    @property
    def total(self) -> int:
        """Everything that will use a slot."""
        return self.running + self.waiting + self.leased


class Coefficients(Struct, frozen=True):
    """The numbers of the price; `configs/server.toml` documents each with its unit."""

    base: Mapping[str, float] = field(default_factory=lambda: {"compile": 0.5, "link": 0.8, "other": 0.3})
    memory_floor: int = 256 << 20
    memory_weight: float = 1.0
    io_wait_weight: float = 0.5
    stale_weight: float = 4.0


class Job(Struct, frozen=True):
    """What is to be priced: its kind, the resources it needs (`mem`, `cpu`, `tool`, …), its input (bytes)."""

    kind: str
    needs: Mapping[str, str] = field(default_factory=dict)
    input_bytes: int = 0


class Bid(Struct, frozen=True):
    """A price, the seconds it predicts, and the terms that add up to the price."""

    price: float
    seconds: float
    terms: Mapping[str, float]


class Refusal(Struct, frozen=True):
    """Why a server does not bid: a word for programs and a line for people."""

    reason: str
    text: str


class Facilities(Struct, frozen=True):
    """What the server can offer to `needs`: free disk (bytes), licences, and the tools on its PATH.

    `has_tool` answers for one name, so that this module does not look at a disk.
    """

    tools: frozenset[str] = frozenset()
    licenses: frozenset[str] = frozenset()
    disk_free: int = 1 << 62
    draining: bool = False


def bid(job: Job, load: Load, commitments: Commitments, facilities: Facilities, k: Coefficients) -> Bid | Refusal:
    """The price of `job` here and now, or why there is none. Finite, above zero, not lower under more load."""
    refusal = refuse(job, load, facilities, k)
    if refusal is not None:
        return refusal
    base = k.base.get(job.kind, k.base["other"])
    wanted = max(1, parse_cores(job.needs.get("cpu", "1")) or 1)
    own = commitments.total
    # What psutil calls busy includes our own commands; the rest is other people's.
    others = max(0.0, load.busy_cores - commitments.running)
    slowdown = max(1.0, (own + 1 + others) / load.cores)
    ahead = max(0, own + 1 - commitments.slots)
    terms = {"base": base, "congestion": base * (slowdown - 1.0)}
    if ahead:
        terms["waiting"] = base * slowdown * ahead / commitments.slots
    seconds = sum(terms.values())
    headroom = max(load.memory_available - k.memory_floor, 1)
    pressure = k.memory_floor / headroom
    if pressure > 0.01:
        terms["memory"] = base * k.memory_weight * min(pressure, 100.0)
    if load.io_wait > 0.0:
        terms["io_wait"] = base * k.io_wait_weight * load.io_wait
    if wanted > 1:
        terms["resources"] = base * (wanted - 1) * slowdown / load.cores
    if load.age_s > STALE_AFTER_S:
        terms["stale"] = base * k.stale_weight * min(load.age_s, 60.0)
    return Bid(price=sum(terms.values()), seconds=seconds, terms=terms)


def refuse(job: Job, load: Load, facilities: Facilities, k: Coefficients) -> Refusal | None:
    """Why this server can't take `job` at any price, or None."""
    if facilities.draining:
        return Refusal("draining", "the server is shutting down")
    if load.memory_available < k.memory_floor:
        return Refusal(
            "memory", f"{load.memory_available >> 20} MiB of memory left, the floor is {k.memory_floor >> 20}"
        )
    for key, value in job.needs.items():
        refusal = _refuse_need(key, value, load, facilities, k)
        if refusal is not None:
            return refusal
    if job.input_bytes > facilities.disk_free:
        return Refusal(
            "disk", f"{facilities.disk_free >> 20} MiB of disk left, the inputs take {job.input_bytes >> 20}"
        )
    return None


def _refuse_need(key: str, value: str, load: Load, facilities: Facilities, k: Coefficients) -> Refusal | None:
    match key:
        case "cpu":
            wanted = parse_cores(value)
            if wanted is None or wanted > load.cores:
                return Refusal("cpu", f"needs cpu={value}, there are {load.cores} cores")
        case "mem":
            size = parse_size(value)
            if size is None or size > load.memory_available - k.memory_floor:
                return Refusal("memory", f"needs mem={value}, {load.memory_available >> 20} MiB are available")
        case "tool":
            if value not in facilities.tools:
                return Refusal("tool", f"needs tool={value}, which is not on the server's PATH")
        case "license":
            if value not in facilities.licenses:
                return Refusal("license", f"needs license={value}, which this server does not have")
        case _:
            return Refusal("resource", f"needs {key}{'=' if value else ''}{value}, which this server does not have")
    return None


def parse_cores(text: str) -> int | None:
    """A number of cores, or None when it isn't one that a machine could have."""
    digits = text.lstrip("0") or text[-1:]  # int() refuses thousands of digits, be they zeros
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= 9 else None


def parse_size(text: str) -> int | None:
    """A size such as 512M, 2G or 4096 in bytes (powers of 1024), or None when it isn't one."""
    factor = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:].upper(), 0)
    digits = text[:-1] if factor else text
    return int(digits) << factor if digits.isdecimal() and digits.isascii() and len(digits) <= 15 else None
