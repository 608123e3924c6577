"""When is it faster to send actions to a farm than to run them here? A model with few coefficients, all in seconds.

    local  = N·w / (cores·share)
    remote = start/share + rounds₀·r + max(client, cable, hosts)
      client = N·(handling + sending·b)/share              the client's processor prepares one action after the other
      cable  = N·8·(b + o)/rate                            all files go through one cable
      hosts  = ⌈N/slots⌉·(overhead + w/speed + rounds·r + 8·(b + o)/rate)

for N actions of w seconds of work each on a processor of speed 1, with b bytes of inputs that the host lacks and o of
outputs, a round trip of r seconds, a cable of `rate` bits a second; the client has `share` of each of its cores. Who
is the bottleneck decides, as in every pipeline, hence the maximum. What a farm gives is local − remote; where that is
zero, the two break even.
"""

import math

from msgspec import Struct

MOST_WORK_S = 1e4
"""No break-even is looked for beyond this."""


class Build(Struct, frozen=True):
    """So many actions alike: seconds of work each, bytes of inputs that the host lacks, bytes of outputs."""

    actions: int
    work_s: float
    input_bytes: float = 0.0
    output_bytes: float = 0.0


class Client(Struct, frozen=True):
    """The user's machine: cores for local actions, and the share of each that is free for us."""

    cores: int = 1
    share: float = 1.0


class Hosts(Struct, frozen=True):
    """All hosts together: slots, the speed of each, the round trip to them (seconds) and the cable's rate (bits a
    second)."""

    slots: int
    speed: float = 1.0
    round_trip_s: float = 0.0
    rate_bps: float = 1e9


class Costs(Struct, frozen=True):
    """What the farm itself costs: the client's start and its handling of each action and input byte, in seconds of its
    processor; a host's overhead for each action, in seconds; round trips for the build and for each action."""

    start_s: float
    handling_s: float
    sending_s_per_byte: float
    overhead_s: float
    start_round_trips: float
    round_trips: float


def local_s(build: Build, client: Client) -> float:
    """How long the build takes on the user's machine alone."""
    rounds = math.ceil(build.actions / client.cores)
    return rounds * build.work_s / client.share


def remote_s(build: Build, client: Client, hosts: Hosts, costs: Costs) -> float:
    """How long it takes on the farm."""
    transfer_s = 8.0 * (build.input_bytes + build.output_bytes) / hosts.rate_bps
    handling_s = build.actions * (costs.handling_s + costs.sending_s_per_byte * build.input_bytes) / client.share
    each_s = costs.overhead_s + build.work_s / hosts.speed + costs.round_trips * hosts.round_trip_s + transfer_s
    pipeline_s = max(handling_s, build.actions * transfer_s, math.ceil(build.actions / hosts.slots) * each_s)
    return costs.start_s / client.share + costs.start_round_trips * hosts.round_trip_s + pipeline_s


def saved_s(build: Build, client: Client, hosts: Hosts, costs: Costs) -> float:
    """What the farm saves, in seconds; below zero it costs."""
    return local_s(build, client) - remote_s(build, client, hosts, costs)


def least_work_s(build: Build, client: Client, hosts: Hosts, costs: Costs) -> float:
    """How many seconds of work an action must be for the farm to pay, all else being as in `build`; infinite when it
    never does. Both times grow with the work in straight lines but for the maximum, so bisection finds the crossing."""

    def saves(work_s: float) -> bool:
        return saved_s(Build(build.actions, work_s, build.input_bytes, build.output_bytes), client, hosts, costs) >= 0.0

    if not saves(MOST_WORK_S):
        return math.inf
    low, high = 0.0, MOST_WORK_S
    while high - low > max(1e-6, 1e-4 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if saves(middle) else (middle, high)
    return high
