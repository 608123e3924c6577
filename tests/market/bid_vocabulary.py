"""The words that tests of prices are written in: any job, any load, and what makes a machine busier."""

from hypothesis import strategies as st
from msgspec import structs

from rakefarm.market.bid import GIB, Bid, Coefficients, Commitments, Job, Load, Standing
from rakefarm.market.needs import Facilities

K = Coefficients()

counts = st.integers(0, 10_000)
shares = st.floats(0, 1)
loads = st.builds(
    Load,
    cores=st.integers(1, 512),
    busy=st.floats(0, 512),
    io_wait=shares,
    memory_available=st.integers(K.memory_floor, 1 << 45),
    memory_total=st.just(1 << 45),
    age_s=st.floats(0, 1e9),
    owner_idle_s=st.floats(0, 1e9),
    busy_in_all=st.floats(0, 512),
    load_average=st.floats(0, 1e5),
)
ends = st.lists(st.floats(-1e5, 1e5), max_size=20).map(lambda times: tuple(sorted(times)))
commitments = st.builds(
    Commitments, slots=st.integers(1, 512), running=counts, waiting=counts, leased=counts, ends_in_s=ends
)
needs = st.sampled_from([(), (("cpu", "1"),), (("cpu", "0"),), (("cpu", "007"),), (("license", "acme"),)])
jobs = st.builds(
    Job,
    kind=st.sampled_from(["compile", "link", "other", "unheard-of", ""]),
    needs=needs,
    input_bytes=st.integers(0, 1 << 61),
    work_s=st.floats(0, 1e12),
)
standings = st.builds(
    Standing, speed=st.floats(0.02, 50.0), faults=st.floats(0, 1e6), quiet=st.booleans(), version=counts
)
EVERYTHING = Facilities(cores=512, licenses=frozenset({"acme"}))

BUSIER = {
    "load_average": lambda load, more: structs.replace(load, load_average=load.load_average + more),
    "busy_in_all": lambda load, more: structs.replace(load, busy_in_all=load.busy_in_all + more),
    "busy": lambda load, more: structs.replace(load, busy=load.busy + more),
    "io_wait": lambda load, more: structs.replace(load, io_wait=min(1.0, load.io_wait + more)),
    "age_s": lambda load, more: structs.replace(load, age_s=load.age_s + more),
    "memory": lambda load, more: structs.replace(
        load, memory_available=max(K.memory_floor, load.memory_available - int(more * GIB))
    ),
    "cores": lambda load, more: structs.replace(load, cores=max(1, load.cores - int(more))),
    "owner": lambda load, more: structs.replace(load, owner_idle_s=max(0.0, load.owner_idle_s - more)),
}


def check_not_lower(before: Bid, after: Bid) -> None:
    assert after.price >= before.price * (1 - 1e-9)
    assert after.seconds >= before.seconds * (1 - 1e-9)
