"""The simulator: whole builds, reproducible, with nothing lost, and no schedule better than the bound."""

import gc
import time
from collections.abc import Sequence

import pytest
from msgspec import structs

from rakefarm.lab.clairvoyant import list_schedule_s, lower_bound_s
from rakefarm.lab.draw import Drawn, draw
from rakefarm.lab.guard import PolicyFailed
from rakefarm.lab.scenario import STANDARD, Fault, Scenario
from rakefarm.lab.world import Outcome, simulate
from rakefarm.market import policy as market
from rakefarm.market.bids import BIDS, DEFAULT
from rakefarm.market.policies import POLICIES


def small(like: str = "base", **changes: object) -> Scenario:
    scenario = STANDARD[like]
    changed = structs.replace(scenario, workload=structs.replace(scenario.workload, clients=2, actions=12))
    return structs.replace(changed, **changes)


def run(drawn: Drawn, policy: str = "plan") -> Outcome:
    return simulate(drawn, policy, POLICIES[policy], BIDS[DEFAULT])


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_does_every_action_once(policy: str) -> None:
    drawn = draw(small(), 3)
    outcome = run(drawn, policy)
    done = [(each.client, each.action) for each in outcome.attempts if each.outcome == "succeeded"]
    assert outcome.lost == 0 and len(done) == len(set(done)) == 48
    assert lower_bound_s(drawn) <= max(outcome.ended_s)


@pytest.mark.parametrize("like", ["dead", "slow", "liar"])
def test_what_is_wrong_with_a_host_loses_nothing(like: str) -> None:
    for seed in range(3):
        assert run(draw(small(like), seed)).lost == 0


@pytest.mark.parametrize("kind", ["dropped", "late"])
def test_messages_may_be_dropped_or_late(kind: str) -> None:
    fault = Fault(kind, share=0.02)  # type: ignore[arg-type]
    plain, hurt = run(draw(small(), 1)), run(draw(small(faults=(fault,)), 1))
    assert hurt.lost == 0
    assert hurt.attempts != plain.attempts


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    first, again, other = (run(draw(small(), seed)) for seed in (1, 1, 2))
    assert first.attempts == again.attempts and first.ended_s == again.ended_s
    assert first.ended_s != other.ended_s


def test_policies_see_the_same_world() -> None:
    assert draw(small(), 1).clients == draw(small(bid="flat", sample_s=9.0), 1).clients


def test_who_knows_everything_is_not_better_than_the_bound() -> None:
    for seed in range(5):
        drawn = draw(small(), seed)
        assert lower_bound_s(drawn) <= list_schedule_s(drawn) * (1 + 1e-9)


def test_starts_queue_for_the_real_cores() -> None:
    quick, slow = (run(draw(small(launch_s=0.1, real_cores=cores), 1)) for cores in (64, 1))
    assert max(slow.ended_s) >= 48 * 0.1
    assert max(slow.ended_s) > max(quick.ended_s)


class Misbehaving:
    """A policy that does what it must not."""

    def __init__(self, deed: str) -> None:
        self._deed = deed

    def handle(self, event: market.Event) -> list[market.Effect]:
        import random
        import time

        match self._deed:
            case "clock":
                time.monotonic()
            case "chance":
                random.random()
            case "raise":
                raise KeyError("x")
            case "rubbish":
                return ["award"]  # type: ignore[list-item]
            case "hang":
                while True:
                    pass
        return []


@pytest.mark.parametrize(
    ("deed", "said"),
    [("clock", "time.monotonic"), ("chance", "random.random"), ("raise", "KeyError"), ("rubbish", "not effects")],
)
def test_a_policy_that_misbehaves_is_told_of_in_one_line(deed: str, said: str) -> None:
    with pytest.raises(PolicyFailed) as caught:
        simulate(draw(small(), 1), "mine", lambda view: Misbehaving(deed), BIDS[DEFAULT])
    assert said in str(caught.value) and "mine" in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_garbage_collection_calls_is_not_held_against_the_policy() -> None:
    """Other libraries time collections, and a collection may come at any allocation, the policy's included."""

    def timed(phase: str, info: dict[str, int]) -> None:
        time.perf_counter()

    def busy(view: market.View) -> market.Policy:
        return Allocating(POLICIES["random"](view))

    before = gc.get_threshold()
    gc.callbacks.append(timed)
    gc.set_threshold(5)
    try:
        simulate(draw(small(), 1), "mine", busy, BIDS[DEFAULT])
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(timed)
    assert gc.isenabled()


class Allocating:
    def __init__(self, policy: market.Policy) -> None:
        self._policy = policy
        self.kept: list[list[int]] = []

    def handle(self, event: market.Event) -> Sequence[market.Effect]:
        self.kept = [[each] for each in range(100)]
        return self._policy.handle(event)


def test_a_policy_that_hangs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rakefarm.lab.guard.PATIENCE_S", 0.1)
    with pytest.raises(PolicyFailed, match="took more than"):
        simulate(draw(small(), 1), "mine", lambda view: Misbehaving("hang"), BIDS[DEFAULT])
