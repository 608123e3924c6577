"""The award policies that come with rakefarm, by name. Others are found through the entry points `rakefarm.awards`."""

from collections.abc import Callable, Mapping

from rakefarm.market.each import (
    EachPolicy,
    RoundRobin,
    at_random,
    fewest_in_flight,
    first_host,
    lowest,
    lowest_cpu,
    lowest_load_average,
    prequal_like,
    random_by_cores,
)
from rakefarm.market.overheads import WithOverheads
from rakefarm.market.plan import PlanPolicy
from rakefarm.market.policy import Policy, View
from rakefarm.market.sparrow import SparrowPolicy

DEFAULT = "plan"

POLICIES: Mapping[str, Callable[[View], Policy]] = {
    "plan": PlanPolicy,
    "plan-break-even": lambda view: PlanPolicy(WithOverheads(view)),
    "plan-no-backups": lambda view: PlanPolicy(view, backups=False),
    "lowest": lambda view: EachPolicy(view, lowest),
    "lowest-burst": lambda view: EachPolicy(view, lowest, burst=True),
    "random": lambda view: EachPolicy(view, at_random, burst=True),
    "cores": lambda view: EachPolicy(view, random_by_cores, burst=True),
    "round-robin": lambda view: EachPolicy(view, RoundRobin(), burst=True),
    "first": lambda view: EachPolicy(view, first_host, burst=True),
    "cpu": lambda view: EachPolicy(view, lowest_cpu, burst=True),
    "load-average": lambda view: EachPolicy(view, lowest_load_average, burst=True),
    "in-flight": lambda view: EachPolicy(view, fewest_in_flight, burst=True),
    "two-choices": lambda view: EachPolicy(view, fewest_in_flight, sample=2, burst=True),
    "prequal": lambda view: EachPolicy(view, prequal_like, sample=3, burst=True),
    "sparrow": SparrowPolicy,
}
