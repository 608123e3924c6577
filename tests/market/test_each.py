"""Policies that ask before each action: whom they ask, who wins, and what they do when nobody bids."""

from collections import Counter

import pytest
from market_vocabulary import HandView, World, asks_of, awards_of, curve, facts, make_jobs, numbered, of_kind
from msgspec import structs

from rakefarm.market.curve import Curve
from rakefarm.market.each import (
    PAUSE_S,
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
from rakefarm.market.policies import DEFAULT, POLICIES
from rakefarm.market.policy import (
    Award,
    Declined,
    Finished,
    HostDown,
    HostFacts,
    HostUp,
    Job,
    Lost,
    Quoted,
    SetStarted,
    WakeAt,
    Withdrawn,
    Woken,
)

HOSTS = ("a", "b", "c")


@pytest.fixture
def view() -> HandView:
    return HandView()


@pytest.fixture
def textbook(view: HandView) -> EachPolicy:
    return EachPolicy(view, lowest)


def quoted(job: Job, host: str, price: float, there: Curve | None = None, seconds: float = 1.0) -> Quoted:
    return Quoted(job, host, price, seconds, there or curve(0.0))


# --- lowest -----------------------------------------------------------------------------------------------


def test_all_are_asked_and_the_lowest_price_wins(textbook: EachPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    assert asks_of(textbook.handle(SetStarted(jobs, facts(*HOSTS)))) == [(0, HOSTS)]
    assert list(textbook.handle(quoted(job, "b", 2.0))) == []
    assert list(textbook.handle(quoted(job, "c", 1.0))) == []
    (award,) = textbook.handle(quoted(job, "a", 3.0))
    assert award == Award(job, "c", 1.0, 1.0, start_now=False, runner_up="b", runner_up_price=2.0)


def test_among_equals_the_first_reply_wins(textbook: EachPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts(*HOSTS)))
    for host in ("c", "a"):
        textbook.handle(quoted(job, host, 1.0))
    assert awards_of(textbook.handle(quoted(job, "b", 1.0))) == [(0, "c")]


def test_sending_is_added_to_the_price(textbook: EachPolicy, view: HandView) -> None:
    view.transfers["a"] = 1.5
    (job,) = jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts("a", "b")))
    textbook.handle(quoted(job, "a", 1.0))
    assert awards_of(textbook.handle(quoted(job, "b", 2.0))) == [(0, "b")]


def test_one_action_is_asked_for_at_a_time_in_order(textbook: EachPolicy) -> None:
    jobs = make_jobs(1.0, 9.0, 2.0)
    effects = [*textbook.handle(SetStarted(jobs, facts("a", slots=8)))]
    for number in range(3):
        assert asks_of(effects) == [(number, ("a",))]
        effects = [*textbook.handle(quoted(jobs[number], "a", 1.0))]
        assert awards_of(effects) == [(number, "a")]
    assert asks_of(effects) == []


def test_no_more_are_asked_for_than_there_are_slots(textbook: EachPolicy) -> None:
    jobs = make_jobs(1.0, 1.0)
    textbook.handle(SetStarted(jobs, facts("a")))
    assert asks_of(textbook.handle(quoted(jobs[0], "a", 1.0))) == []
    assert asks_of(textbook.handle(Finished(jobs[0], "a", 1.0, None))) == [(1, ("a",))]


def test_a_host_that_declines_is_no_bidder(textbook: EachPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts("a", "b")))
    textbook.handle(Declined(job, "a", lasting=True))
    assert awards_of(textbook.handle(quoted(job, "b", 9.0))) == [(0, "b")]


def test_an_answer_that_comes_twice_counts_once(textbook: EachPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts("a", "b")))
    for _ in range(3):
        assert list(textbook.handle(quoted(job, "a", 1.0))) == []
    assert awards_of(textbook.handle(quoted(job, "b", 2.0))) == [(0, "a")]
    assert list(textbook.handle(quoted(job, "b", 0.1))) == []


def test_nobody_bids_and_all_are_asked_again_later(textbook: EachPolicy, view: HandView) -> None:
    (job,) = jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts("a", "b")))
    textbook.handle(Declined(job, "a", lasting=False))
    effects = textbook.handle(Declined(job, "b", lasting=False))
    assert list(effects) == [WakeAt(view.time_s + PAUSE_S)]
    assert asks_of(textbook.handle(Woken())) == [(0, ("a", "b"))]
    textbook.handle(Declined(job, "a", lasting=False))
    assert awards_of(textbook.handle(quoted(job, "b", 1.0))) == [(0, "b")]


def test_a_host_down_in_mid_auction_is_not_waited_for(textbook: EachPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts(*HOSTS)))
    textbook.handle(quoted(job, "a", 1.0))
    textbook.handle(quoted(job, "b", 2.0))
    assert awards_of(textbook.handle(HostDown("c"))) == [(0, "a")]


def test_a_bidder_that_went_down_does_not_win(textbook: EachPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts("a", "b")))
    textbook.handle(quoted(job, "a", 1.0))
    assert list(textbook.handle(HostDown("a"))) == []
    assert awards_of(textbook.handle(quoted(job, "b", 2.0))) == [(0, "b")]


def test_all_down_and_one_up_again(textbook: EachPolicy) -> None:
    jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts("a")))
    assert of_kind(textbook.handle(HostDown("a")), WakeAt)
    assert asks_of(textbook.handle(Woken())) == []
    assert asks_of(textbook.handle(HostUp(HostFacts("a", 1, 1)))) == [(0, ("a",))]


def test_a_lost_job_is_offered_to_the_others_first(textbook: EachPolicy) -> None:
    (job,) = jobs = make_jobs(1.0)
    textbook.handle(SetStarted(jobs, facts("a", "b")))
    textbook.handle(quoted(job, "a", 1.0))
    assert awards_of(textbook.handle(quoted(job, "b", 2.0))) == [(0, "a")]
    assert asks_of(textbook.handle(Lost(job, "a"))) == [(0, ("b",))]
    assert awards_of(textbook.handle(quoted(job, "b", 2.0))) == [(0, "b")]
    assert asks_of(textbook.handle(Lost(job, "b"))) == [(0, ("a", "b"))], "everywhere by now"


def test_a_withdrawn_job_is_forgotten_wherever_it_is(textbook: EachPolicy) -> None:
    jobs = make_jobs(1.0, 1.0, 1.0)
    textbook.handle(SetStarted(jobs, facts("a", slots=3)))
    assert asks_of(textbook.handle(Withdrawn(jobs[0]))) == [(1, ("a",))], "in an auction"
    assert list(textbook.handle(quoted(jobs[0], "a", 1.0))) == []
    textbook.handle(Withdrawn(jobs[2]))
    textbook.handle(Declined(jobs[1], "a", lasting=False))
    textbook.handle(Withdrawn(jobs[1]))
    assert list(textbook.handle(Woken())) == []


# --- the others -------------------------------------------------------------------------------------------


def test_a_burst_asks_for_all_that_have_a_slot(view: HandView) -> None:
    policy = EachPolicy(view, lowest, burst=True)
    jobs = make_jobs(*[1.0] * 5)
    asked = asks_of(policy.handle(SetStarted(jobs, facts("a", "b", slots=2))))
    assert asked == [(number, ("a", "b")) for number in range(4)]


def test_a_sample_is_drawn_without_replacement(view: HandView) -> None:
    policy = EachPolicy(view, lowest, sample=2)
    (job,) = jobs = make_jobs(1.0)
    view.chances.extend([0.99, 0.99])
    assert asks_of(policy.handle(SetStarted(jobs, facts(*HOSTS)))) == [(0, ("c", "b"))]
    policy.handle(quoted(job, "c", 1.0))
    assert awards_of(policy.handle(quoted(job, "b", 0.5))) == [(0, "b")]


def test_a_sample_of_more_than_there_are_is_all(view: HandView) -> None:
    policy = EachPolicy(view, lowest, sample=9)
    ((_, hosts),) = asks_of(policy.handle(SetStarted(make_jobs(1.0), facts(*HOSTS))))
    assert set(hosts) == set(HOSTS)


JOB = make_jobs(1.0)[0]


def bids(**curves: Curve) -> list[Quoted]:
    return [quoted(JOB, host, 1.0, there) for host, there in curves.items()]


def test_round_robin_takes_each_host_in_turn(view: HandView) -> None:
    choose = RoundRobin()
    offered = bids(c=curve(0.0), a=curve(0.0), b=curve(0.0))
    assert [offered[choose(view, offered)].host for _ in range(5)] == ["a", "b", "c", "a", "b"]
    assert offered[choose(view, offered[:2])].host == "c"


def test_at_random_takes_any(view: HandView) -> None:
    view.chances.extend([0.0, 0.4, 0.99])
    assert [at_random(view, bids(a=curve(0.0), b=curve(0.0), c=curve(0.0))) for _ in range(3)] == [0, 1, 2]


def test_random_by_cores_takes_a_large_host_more_often(view: HandView) -> None:
    offered = bids(one=curve(0.0), three=curve(0.0, 0.0, 0.0))
    view.chances.extend(number / 100 for number in range(100))
    assert Counter(random_by_cores(view, offered) for _ in range(100)) == {0: 25, 1: 75}


def test_first_host_walks_the_list(view: HandView) -> None:
    assert first_host(view, bids(b=curve(0.0), a=curve(1.0))) == 0, "the first with a free slot"
    assert first_host(view, bids(b=curve(1.0), a=curve(1.0))) == 1, "else the first"


def test_lowest_cpu_looks_at_the_processors(view: HandView) -> None:
    assert lowest_cpu(view, bids(a=curve(0.0, 0.0, busy=1.0), b=curve(0.0, 0.0, 0.0, busy=1.2))) == 1


def test_lowest_load_average_looks_at_the_last_minute(view: HandView) -> None:
    idle, loaded = curve(0.0, 0.0), structs.replace(curve(0.0, 0.0, 0.0), load_average=0.5)
    assert lowest_load_average(view, bids(a=loaded, b=idle)) == 1
    assert lowest_load_average(view, bids(a=loaded, b=structs.replace(idle, load_average=0.4))) == 0, "for each core"


def test_fewest_in_flight_counts_for_each_core(view: HandView) -> None:
    assert fewest_in_flight(view, bids(a=curve(0.0, running=1), b=curve(0.0, 0.0, running=1))) == 1
    assert fewest_in_flight(view, bids(a=curve(0.0, running=1), b=curve(0.0, waiting=2))) == 0


def test_prequal_takes_the_soonest_of_the_cold(view: HandView) -> None:
    offered = [
        quoted(JOB, "hot", 1.0, curve(0.0, running=9), seconds=0.1),
        quoted(JOB, "cold", 1.0, curve(0.0), seconds=3.0),
        quoted(JOB, "warm", 1.0, curve(0.0, running=5), seconds=0.2),
    ]
    assert prequal_like(view, offered) == 1
    hot = bids(a=curve(0.0, running=3), b=curve(0.0, running=3))
    assert prequal_like(view, hot) == 0


# --- all of them, in a world ------------------------------------------------------------------------------

UNEVEN = {"a": (1, 1.0), "b": (2, 2.0), "c": (4, 0.5)}


def test_the_default_is_one_of_them() -> None:
    assert DEFAULT in POLICIES


@pytest.mark.parametrize("latency_s", [0.0, 0.002])
@pytest.mark.parametrize("clients", [1, 4])
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_does_all_the_work(name: str, clients: int, latency_s: float) -> None:
    world = World(POLICIES[name], UNEVEN, clients, latency_s)
    jobs = make_jobs(*[0.2 + 0.1 * (number % 7) for number in range(25)])
    world.run(jobs)
    world.run(numbered(jobs, 100))
    for client in world.clients:
        assert {number for number, _ in client.awards} == {*range(25), *range(100, 125)}
        assert len(client.awards) == 50 + client.refused


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_loses_what_the_farm_loses(name: str) -> None:
    world = World(POLICIES[name], UNEVEN, 2, 0.001)
    world.hosts["a"].loses = {3, 5, 7}
    world.hosts["c"].loses = {2, 3, 4}
    world.at(1.0, world.hosts["b"].go_down)
    world.at(2.5, world.hosts["b"].come_up)
    world.run(make_jobs(*[0.4] * 40))


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_minds_that_every_host_was_down(name: str) -> None:
    world = World(POLICIES[name], UNEVEN)
    for host in world.hosts.values():
        world.at(0.5, host.go_down)
        world.at(2.0, host.come_up)
    world.run(make_jobs(*[0.4] * 20))


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_finds_the_one_host_that_takes_a_task(name: str) -> None:
    world = World(POLICIES[name], UNEVEN)
    world.hosts["b"].declines = world.hosts["c"].declines = {"licensed": True}
    world.run((*make_jobs(*[0.3] * 6), *numbered(make_jobs(*[0.3] * 4, task="licensed"), 6)))
    assert {host for number, host in world.clients[0].awards if number >= 6} == {"a"}


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_waits_out_what_is_declined_for_the_moment(name: str) -> None:
    """Who declines for the moment is asked again, by the policy or by whoever runs it."""
    world = World(POLICIES[name], UNEVEN)
    for host in world.hosts.values():
        host.declines = {"task": False}

    def relent() -> None:
        for host in world.hosts.values():
            host.declines = {}
        for client in world.clients:
            for host in world.hosts.values():
                host.quote(client, next(iter(client.unfinished.values())))

    world.at(1.0, relent)
    world.run(make_jobs(*[0.3] * 8))
    assert world.clients[0].messages < 400, "and not all the time"
