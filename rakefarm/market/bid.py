"""The price of a job on one server, as a pure function of what is known there at that moment.

    seconds = wait + work / rate(n + 1)            predicted time to finish here, the sending of inputs left out
    price   = seconds × base(kind) + surcharges    what decides

`n` counts the farm's own commands here, running and committed, exactly; `rate` is in `curve`. Seconds and price are two
fields and never merged: the first is a prediction that is held against what happens, the second is policy. Every part
of a price is a named term and the terms add up, so that a person can see what made a host dear:

  - run       the work at the rate it would get; wait: until a slot is free; both times the base of the kind;
  - memory    rises as the memory left falls towards the floor, where the answer is a refusal;
  - io_wait   grows with the share of time the cores spend waiting for disks;
  - stale     a load sample older than a second makes the quote dear, not cheap: who doesn't know bids high;
  - license   takes something scarce from others;
  - owner     somebody sits at the machine and has touched it lately;
  - quiet     hours in which the machine would rather be left alone;
  - faults    the host (never a user's command) failed lately; decays by half in each half-life.

Bytes to send are the client's to add: only it knows what it still has to send and how fast the wire is.
"""

from collections.abc import Callable, Mapping
from typing import Annotated

from msgspec import Meta, Struct, field

from rakefarm.market.curve import Curve, expected_s, free_times, rate
from rakefarm.market.needs import Facilities, Refusal, cores_wanted, refuse_need

GIB = 1 << 30
STALE_AFTER_S = 1.0
CURVE_VALID_S = 1.0
LONGEST_WORK_S = 86_400.0
"""A client's prediction beyond this is not believed."""
SHORTEST_WORK_S = 1e-6
"""Nor one below this: a price is above zero, however fast the host."""


Weight = Meta(ge=0.0, le=1000.0)
Factor = Meta(ge=0.001, le=1000.0)


class Load(Struct, frozen=True):
    """A machine's load: cores, busy cores of other users (or, when all cores are busy, how many of them compete for
    these) and of all (for comparison), shares 0 to 1,
    bytes; `age_s` since it was read; `owner_idle_s` since somebody at the machine touched it; the load average of the
    last minute (for comparison)."""

    cores: int
    busy: float
    io_wait: float
    memory_available: int
    memory_total: int
    age_s: float = 0.0
    owner_idle_s: float = 1e9
    busy_in_all: float = 0.0
    load_average: float = 0.0


class Commitments(Struct, frozen=True):
    """What this server has promised: commands running, waiting for a slot, and places held by leases; when the running
    ones are expected to end (seconds from now, ascending; below zero when overdue). `elsewhere` are slots that can't be
    had now because others hold them who share them with us; nobody tells until when."""

    slots: int
    running: int
    waiting: int
    leased: int
    ends_in_s: tuple[float, ...] = ()
    elsewhere: int = 0

    def all_ends(self, run_s: float) -> tuple[float, ...]:
        """When each slot that is taken comes free; of those elsewhere we guess that they run what we run (`run_s`), and
        are half through."""
        if not self.elsewhere:
            return self.ends_in_s
        return tuple(sorted((*self.ends_in_s, *[run_s / 2] * self.elsewhere)))

    @property
    def total(self) -> int:
        """Everything that will use a slot."""
        return self.running + self.waiting + self.leased


class Coefficients(Struct, frozen=True):
    """The numbers of the price; `configs/server.toml` documents each with its unit."""

    base: Annotated[Mapping[str, float], Factor] = field(
        default_factory=lambda: {"compile": 1.0, "link": 1.0, "other": 1.0}
    )
    work: Annotated[Mapping[str, float], Meta(ge=1e-6, le=LONGEST_WORK_S)] = field(
        default_factory=lambda: {"compile": 0.5, "link": 0.8, "other": 0.3}
    )
    memory_floor: int = 256 << 20
    disk_floor: int = 64 << 20
    memory_weight: Annotated[float, Weight] = 1.0
    io_wait_weight: Annotated[float, Weight] = 0.5
    stale_weight: Annotated[float, Weight] = 4.0
    license_weight: Annotated[float, Weight] = 0.5
    owner_weight: Annotated[float, Weight] = 0.5
    owner_idle_s: Annotated[float, Meta(ge=0.0, le=1e9)] = 300.0
    quiet_weight: Annotated[float, Weight] = 2.0
    fault_weight: Annotated[float, Weight] = 0.5
    fault_half_life_s: Annotated[float, Meta(ge=0.001, le=1e9)] = 120.0


class Job(Struct, frozen=True):
    """What is to be priced: its kind, the resources it needs, its input (bytes), and what the client predicts from
    experience: reference seconds of work (0: nothing known) and peak memory in bytes (0: nothing known)."""

    kind: str
    needs: tuple[tuple[str, str], ...] = ()
    input_bytes: int = 0
    work_s: float = 0.0
    memory_bytes: int = 0


class Standing(Struct, frozen=True):
    """What else bears on the price: the host's learned speed (1 is the reference), recent faults after decay, and
    whether these are its quiet hours."""

    speed: float = 1.0
    faults: float = 0.0
    quiet: bool = False
    version: int = 0


class Bid(Struct, frozen=True):
    """A price, the seconds it predicts, the terms that add up to the price, and the curve it was read from."""

    price: float
    seconds: float
    terms: Mapping[str, float]
    curve: Curve


class Situation(Struct, frozen=True):
    """All that a price may rest on: the job, what this host is doing and has promised, the coefficients, its standing;
    and what follows from these for the job: seconds that it would run here, and seconds until its slot is free."""

    job: Job
    load: Load
    promised: Commitments
    k: Coefficients
    standing: Standing
    run_s: float
    wait_s: float


TermsOf = Callable[[Situation], Mapping[str, float]]
"""The parts of a price by name; the price is their sum."""


def work_of(job: Job, k: Coefficients) -> float:
    """Reference seconds of the job: the client's prediction, else the default of its kind."""
    if job.work_s > 0.0:
        return min(max(job.work_s, SHORTEST_WORK_S), LONGEST_WORK_S)
    return k.work.get(job.kind, k.work["other"])


def expected_run(job: Job, load: Load, promised: Commitments, speed: float, k: Coefficients) -> tuple[float, float]:
    """How long one more such job is expected to run (seconds) beside what runs and is leased, and what share of a core
    it gets."""
    share = share_of(job, load, promised.running + promised.leased)
    return work_of(job, k) / (speed * share), share


def share_of(job: Job, load: Load, commands: int) -> float:
    """What share of a core the job gets beside so many commands."""
    return rate(1.0, load.cores, load.busy, commands + cores_wanted(job.needs))


def curve_of(load: Load, commitments: Commitments, standing: Standing, run_s: float) -> Curve:
    """The server's curve, when a typical command takes `run_s` here."""
    reserved = commitments.waiting + commitments.leased
    return Curve(
        cores=load.cores,
        slots=commitments.slots,
        speed=standing.speed,
        busy=load.busy,
        busy_in_all=load.busy_in_all,
        running=commitments.running + commitments.leased,
        waiting=commitments.waiting + commitments.elsewhere,  # either way others come before us
        version=standing.version,
        valid_s=CURVE_VALID_S,
        free_in_s=free_times(commitments.slots, commitments.all_ends(run_s), reserved, run_s),
        load_average=load.load_average,
        memory_available_bytes=load.memory_available,
        sample_age_s=load.age_s,
    )


def bid(
    job: Job,
    load: Load,
    commitments: Commitments,
    facilities: Facilities,
    k: Coefficients,
    standing: Standing | None = None,
    terms_of: TermsOf | None = None,
) -> Bid | Refusal:
    """The price of `job` here and now, or why there is none. Finite, above zero, not lower under more load. The terms
    of the price may be another's (see `bids`); the seconds, the curve and what is refused never are."""
    terms_of = terms_of or finish_terms
    refusal = refuse(job, load, facilities, k)
    if refusal is not None:
        return refusal
    standing = standing or Standing()
    own = commitments.total
    run = work_of(job, k) / rate(standing.speed, load.cores, load.busy, own + cores_wanted(job.needs))
    wait = _wait(commitments, own, run)
    terms = terms_of(Situation(job, load, commitments, k, standing, run, wait))
    return Bid(
        price=sum(terms.values()), seconds=wait + run, terms=terms, curve=curve_of(load, commitments, standing, run)
    )


def _wait(commitments: Commitments, own: int, run: float) -> float:
    """Seconds until a slot is free for one more: none while there is one, else the next release that nobody else
    waits for."""
    ahead = own + commitments.elsewhere - commitments.slots
    if ahead < 0:
        return 0.0
    ends = sorted([expected_s(end) for end in commitments.all_ends(run) or (run / 2,)])
    return ends[min(ahead, len(ends) - 1)] + run * (ahead // commitments.slots)


def finish_terms(now: Situation) -> dict[str, float]:
    """The price by default: the time until it would be finished here, times the base of its kind, and surcharges."""
    base = now.k.base.get(now.job.kind, now.k.base["other"])
    terms = {"run": now.run_s * base}
    if now.wait_s:
        terms["wait"] = now.wait_s * base
    _add_surcharges(terms, now)
    return terms


def _add_surcharges(terms: dict[str, float], now: Situation) -> None:
    run, load, k, standing = now.run_s, now.load, now.k, now.standing
    pressure = k.memory_floor / max(load.memory_available - k.memory_floor, 1)
    if pressure > 0.01:
        terms["memory"] = run * k.memory_weight * min(pressure, 100.0)
    if load.io_wait > 0.001:  # an average that fades never quite ends
        terms["io_wait"] = run * k.io_wait_weight * load.io_wait
    if load.age_s > STALE_AFTER_S:
        terms["stale"] = run * k.stale_weight * min(load.age_s, 60.0)
    if k.license_weight and any(key == "license" for key, _ in now.job.needs):
        terms["license"] = run * k.license_weight
    if load.owner_idle_s < k.owner_idle_s and k.owner_weight:
        terms["owner"] = run * k.owner_weight
    if standing.quiet and k.quiet_weight:
        terms["quiet"] = run * k.quiet_weight
    if standing.faults > 0.01:
        terms["faults"] = run * k.fault_weight * min(standing.faults, 100.0)


def refuse(job: Job, load: Load, facilities: Facilities, k: Coefficients) -> Refusal | None:
    """Why this server can't take `job` at any price, or None."""
    if facilities.draining:
        return Refusal("draining", "the server is shutting down")
    if load.memory_available < k.memory_floor + job.memory_bytes:
        wanted = f", the action took {job.memory_bytes >> 20} before" if job.memory_bytes else ""
        left, floor = load.memory_available >> 20, k.memory_floor >> 20
        return Refusal("memory", f"{left} MiB of memory left, the floor is {floor}{wanted}")
    for key, value in job.needs:
        refusal = refuse_need(key, value, facilities, k.memory_floor)
        if refusal is not None:
            return refusal
    if job.input_bytes + k.disk_floor > facilities.disk_free:
        left = facilities.disk_free >> 20
        return Refusal("disk", f"{left} MiB of disk left, the inputs take {job.input_bytes >> 20}")
    return None
