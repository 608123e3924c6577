"""What is simulated, as frozen data: hosts, wires, work, history, faults; and the standard ones by name.

Times in seconds, sizes in bytes, bandwidth in bytes a second, work in seconds of a core of speed 1.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

Positive = Annotated[float, Meta(gt=0.0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0.0, le=1e9)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=1, le=100_000)]


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """What is wrong. `dead`: a host's processes are killed at `at_s`. `slow`: one does its work `factor` times slower
    than it says; `liar`: one says that it is `factor` times faster than it is, and never learns better. `dropped`,
    `late`: a message in `share` never comes, or comes `by_s` later. Which host, chance decides by the seed."""

    kind: Literal["dead", "slow", "liar", "dropped", "late"]
    at_s: NotNegative = 0.0
    factor: Positive = 10.0
    share: Share = 0.01
    by_s: NotNegative = 1.0


class Foreign(Struct, frozen=True, forbid_unknown_fields=True):
    """Load of others: `onoff` is `level` of a host's cores, on for `on_s` and off for `off_s` in the mean; `recorded`
    is a CSV `file` of time_s,share (of the cores), repeated, each host from another place in it on."""

    kind: Literal["none", "onoff", "recorded"] = "onoff"
    level: Share = 0.7
    on_s: Positive = 10.0
    off_s: Positive = 10.0
    file: str = ""


class Workload(Struct, frozen=True, forbid_unknown_fields=True):
    """`clients` with `sets` of `actions` each, arriving `arrival_s` apart in the mean (0: together). Actions are of
    `signatures` sorts, log-normal: `median_s`, `sigma_between` sorts, `sigma_within` one; `unseen` of the sorts have
    no history. `trace` is a CSV file of client,set,signature,work_s instead."""

    clients: Count = 4
    sets: Count = 2
    actions: Count = 60
    arrival_s: NotNegative = 0.0
    signatures: Count = 40
    median_s: Positive = 2.0
    sigma_between: NotNegative = 0.9
    sigma_within: NotNegative = 0.3
    unseen: Share = 0.1
    input_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 200_000
    trace: str = ""


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """A farm and what it is to do, but for the seed. `slots` 0: as many as cores. `launch_s` is processor time that
    starting a command takes before it works; with `real_cores` all starts of all hosts queue for so many cores, as they
    do where a farm is emulated on one machine. `history`: what clients know of their actions. `one_user`: all clients
    are one user's, and wait first come, first served."""

    hosts: Count = 12
    cores: tuple[Count, ...] = (2, 4, 4, 8, 8, 16, 32, 64)
    slowest: Positive = 0.5
    fastest: Positive = 2.0
    slots: Annotated[int, Meta(ge=0, le=4096)] = 0
    foreign: Foreign = Foreign()
    sample_s: Positive = 1.0
    round_trip_s: tuple[NotNegative, NotNegative] = (0.3e-3, 4e-3)
    bandwidths: tuple[Positive, ...] = (12.5e6, 125e6)
    launch_s: NotNegative = 0.0
    real_cores: Annotated[int, Meta(ge=0, le=4096)] = 0
    workload: Workload = Workload()
    history: Literal["none", "warm", "perfect"] = "warm"
    one_user: bool = False
    repeatable: bool = True
    faults: tuple[Fault, ...] = ()
    bid: str = "finish"


def _sized(clients: int, sets: int, actions: int) -> Workload:
    return Workload(clients=clients, sets=sets, actions=actions)


BASE = Scenario()
STANDARD = {
    "light": structs.replace(BASE, workload=_sized(4, 1, 12)),
    "base": BASE,
    "deep": structs.replace(BASE, workload=_sized(1, 1, 250)),
    "4-hosts": structs.replace(BASE, hosts=4),
    "32-hosts": structs.replace(BASE, hosts=32),
    "64-hosts": structs.replace(BASE, hosts=64),
    "16-clients": structs.replace(BASE, workload=_sized(16, 2, 60)),
    "dead": structs.replace(BASE, faults=(Fault("dead", at_s=4.0),)),
    "slow": structs.replace(BASE, faults=(Fault("slow"),)),
    "liar": structs.replace(BASE, faults=(Fault("liar"),)),
}
"""The farms that targets are set for: 12 hosts but where the name says otherwise."""
