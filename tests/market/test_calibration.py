"""Calibration: runs told as a ledger tells them, and the numbers that follow; every example can be done by hand."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.market.calibration import Herd, calibrate, herd_of
from rakefarm.market.runs import last_run, read_runs

Record = dict[str, object]

BOOT = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Teller:
    """Tells a run's records. Times are seconds since its clock's start, which is `offset` seconds after BOOT."""

    def __init__(self, run_id: str, offset: float = 0.0) -> None:
        self.run_id = run_id
        self.offset = offset
        self.records: list[Record] = []

    def tell(self, event: str, time_s: float, **fields: object) -> None:
        at = datetime.fromtimestamp(BOOT + self.offset + time_s, UTC)
        text = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
        self.records.append(
            {"schema": 1, "event": event, "run_id": self.run_id, "time_s": time_s, "at": text, **fields}
        )

    def start(self, time_s: float = 0.0, *, embedded: bool = False, **slots: int) -> "Teller":
        self.tell("build_started", time_s, rakefile="Rakefile", embedded=embedded)
        for host, count in slots.items():
            self.tell("host_ready", time_s, host=host, slots=count)
        return self

    def quote(self, time_s: float, action: int, host: str, seconds: float | None, **terms: float | None) -> None:
        self.tell("quote_received", time_s, action=action, host=host, price=seconds, seconds=seconds, terms=terms)

    def place(self, time_s: float, action: int, host: str, attempt: int = 1, seconds: float | None = None) -> None:
        self.tell("action_placed", time_s, action=action, host=host, price=1.0, attempt=attempt, seconds=seconds)

    def retry(self, time_s: float, action: int, host: str) -> None:
        self.tell("action_retried", time_s, action=action, host=host, reason="lost: gone")

    def finish(self, time_s: float, action: int, host: str, outcome: str = "succeeded") -> None:
        self.tell("action_finished", time_s, action=action, host=host, outcome=outcome, elapsed_s=1.0)

    def end(self, time_s: float, elapsed_s: float) -> "Teller":
        self.tell("build_finished", time_s, exit_status=0, elapsed_s=elapsed_s)
        return self

    def run(
        self, action: int, host: str, begin: float, end: float, seconds: float | None = None, **terms: float
    ) -> None:
        """One action, from its quote to its end."""
        if seconds is not None:
            self.quote(begin, action, host, seconds, **terms)
        self.place(begin, action, host)
        self.finish(end, action, host)


def merged(*tellers: Teller) -> list[Record]:
    """As a ledger that all of them write at once, in turn."""
    columns = [list(teller.records) for teller in tellers]
    records = []
    while any(columns):
        records += [column.pop(0) for column in columns if column]
    return records


def herd(*tellers: Teller, run_id: str | None = None, settle_s: float = 0.0) -> Herd:
    runs, foreign = read_runs(merged(*tellers))
    assert not foreign
    return herd_of(list(runs.values()), run_id, settle_s)


# --- bids -------------------------------------------------------------------------------------------------


def test_the_winning_quote_is_held_against_the_realised_time() -> None:
    told = Teller("one").start(fast=2, slow=2)
    for action, (bid, took) in enumerate([(1.0, 1.0), (3.0, 2.0), (9.0, 3.0)]):
        told.quote(1.0, action, "slow", bid * 7)
        told.quote(1.0, action, "slow", None)
        told.quote(1.0, action, "fast", bid)
        told.place(1.0, action, "fast")
        told.finish(1.0 + took, action, "fast")
    runs, _ = read_runs(told.records)
    found = calibrate(runs)
    assert list(found.hosts) == ["fast"] and found.hosts["fast"] == found.overall
    assert found.overall.actions == 3
    assert found.overall.median_error == pytest.approx(0.5)  # of 0, 0.5 and 2
    assert found.overall.bias == pytest.approx(1.5)
    assert found.overall.rank_correlation == 1.0
    assert (found.overall.bid_s, found.overall.realised_s) == (3.0, 2.0)


def test_what_says_nothing_of_a_bid_is_left_out() -> None:
    told = Teller("one").start(lab=2)
    told.quote(1.0, 1, "lab", 1.0)
    told.place(1.0, 1, "lab")
    told.finish(2.0, 1, "lab", outcome="failed")
    told.quote(1.0, 2, "lab", 1.0)
    told.finish(1.0, 2, "", outcome="not_run")
    told.run(3, "local", 1.0, 2.0)
    told.run(4, "lab", 1.0, 1.0, 1.0)  # no time at all
    told.quote(1.0, 5, "lab", 1.0)
    told.place(1.0, 5, "lab")  # never told to have finished
    told.place(1.0, 6, "lab", seconds=0.0)
    told.finish(2.0, 6, "lab")
    runs, foreign = read_runs(told.records)
    found = calibrate(runs)
    assert not foreign and found.overall.actions == 0 and not found.hosts and not found.terms
    assert found.overall.median_error is found.overall.bias is found.overall.realised_s is None


def test_of_an_action_placed_again_the_last_place_counts() -> None:
    told = Teller("one").start(lost=1, kept=1)
    told.quote(1.0, 1, "lost", 5.0)
    told.quote(1.0, 1, "kept", 6.0)
    told.place(1.0, 1, "lost")
    told.retry(4.0, 1, "lost")
    told.quote(4.0, 1, "kept", 3.0)
    told.place(4.0, 1, "kept", attempt=2)
    told.finish(6.0, 1, "kept")
    runs, _ = read_runs(told.records)
    found = calibrate(runs)
    assert list(found.hosts) == ["kept"]
    assert (found.overall.bid_s, found.overall.realised_s) == (3.0, 2.0)


def test_an_awards_own_prediction_comes_before_the_quote() -> None:
    told = Teller("one").start(lab=1)
    told.quote(1.0, 1, "lab", 5.0, base=5.0)
    told.place(3.0, 1, "lab", seconds=2.0)
    told.place(3.0, 2, "lab", seconds=4.0)  # a policy need not ask for each
    told.finish(4.0, 1, "lab")
    told.finish(5.0, 2, "lab")
    runs, _ = read_runs(told.records)
    found = calibrate(runs)
    assert (found.overall.actions, found.overall.bid_s, found.overall.bias) == (2, 3.0, pytest.approx(2.0))
    assert found.terms["base"].quotes == 1


def test_of_two_copies_only_the_winner_says_something() -> None:
    told = Teller("one").start(slow=1, quick=1)
    told.place(1.0, 1, "slow", seconds=2.0)
    told.place(5.0, 1, "quick", attempt=2, seconds=1.0)
    told.run(2, "slow", 5.5, 5.6)
    told.finish(6.0, 1, "quick")
    told.run(3, "slow", 6.5, 7.0)
    runs, _ = read_runs(told.records)
    assert {host: found.actions for host, found in calibrate(runs).hosts.items()} == {"quick": 1}
    assert herd(told) == Herd(4, 0, 0, 0.0)  # both hosts were full, and then neither


def test_who_refused_an_award_is_not_filled_by_it() -> None:
    told = Teller("one").start(a=1, b=1)
    told.place(1.0, 1, "a", seconds=1.0)  # full of somebody else's
    told.place(1.1, 1, "b", seconds=1.0)
    told.run(2, "a", 1.5, 2.0)
    told.finish(2.0, 1, "b")
    assert herd(told) == Herd(3, 0, 0, 0.0)


def test_an_award_has_terms_of_its_own_whether_or_not_it_was_quoted() -> None:
    records = Teller("run").start(h=1)
    records.quote(0.5, 1, "h", 3.0, run=1.0)
    for action, extra in ((1, 0.5), (2, 1.5)):
        records.tell("action_placed", 1.0, action=action, host="h", seconds=3.0, terms={"run": 2.0, "stale": extra})
        records.tell("action_finished", 4.0, action=action, host="h", outcome="succeeded")
    terms = calibrate(read_runs(records.records)[0]).terms
    assert (terms["run"].quotes, terms["run"].median, terms["stale"].median) == (2, 2.0, 1.0)


def test_the_terms_that_mislead_are_found() -> None:
    told = Teller("one").start(lab=9)
    for action in range(6):
        told.run(action, "lab", 1.0, 2.0, 1.0 + action, base=0.5, congestion=float(action))
    told.run(6, "lab", 1.0, 2.0, 9.0, base=0.5, congestion=8.0, stale=3.0)
    runs, _ = read_runs(told.records)
    terms = calibrate(runs).terms
    assert terms["congestion"].correlation == 1.0 and terms["congestion"].quotes == 7
    assert terms["base"].correlation is None and terms["base"].median == 0.5
    assert terms["stale"].quotes == 1 and terms["stale"].median == 0.0
    assert list(terms) == ["base", "congestion", "stale"]


def test_embedded_farms_are_one_host() -> None:
    one, other = Teller("one").start(embedded=True, a=1), Teller("other").start(embedded=True, b=1)
    one.run(1, "a", 0.0, 1.0, 1.0)
    other.run(1, "b", 0.0, 1.0, 1.0)
    runs, _ = read_runs(merged(one, other))
    assert {host: found.actions for host, found in calibrate(runs).hosts.items()} == {"local": 2}


def test_one_run_alone() -> None:
    one, other = Teller("one").start(a=1), Teller("other", 100.0).start(a=1)
    one.run(1, "a", 0.0, 1.0, 1.0)
    other.run(1, "a", 0.0, 1.0, 3.0)
    runs, _ = read_runs(merged(one, other))
    assert calibrate(runs).overall.actions == 2
    found = calibrate(runs, "other")
    assert (found.runs, found.overall.actions, found.overall.bid_s) == (1, 1, 3.0)
    assert last_run(runs) == "other"
    assert last_run({}) is None


# --- herding ----------------------------------------------------------------------------------------------


def test_an_award_to_a_full_host_while_another_has_room_is_herding() -> None:
    told = Teller("one").start(a=1, b=1)
    told.run(1, "a", 1.0, 5.0)
    told.run(2, "a", 2.0, 6.0)
    assert herd(told) == Herd(2, 1, 0, 0.5)


def test_an_award_to_a_full_host_is_none_when_all_are_full() -> None:
    told = Teller("one").start(a=1, b=1)
    told.run(1, "a", 1.0, 5.0)
    told.run(2, "b", 1.5, 5.0)
    told.run(3, "a", 2.0, 6.0)
    assert herd(told) == Herd(3, 0, 0, 0.0)


def test_an_award_to_a_host_with_room_is_none() -> None:
    told = Teller("one").start(a=2, b=1)
    told.run(1, "a", 1.0, 5.0)
    told.run(2, "a", 2.0, 6.0)
    told.run(3, "a", 5.0, 6.0)  # the first has just left
    assert herd(told) == Herd(3, 0, 0, 0.0)


def test_other_clients_fill_a_host_too() -> None:
    """Their clocks began at other times; only the wall clock puts them in order."""
    one, other = Teller("one", 0.0).start(a=1, b=1), Teller("other", 1000.0).start(-999.5, a=1, b=1)
    one.run(1, "a", 1.0, 5.0)
    other.run(1, "a", -998.0, -990.0)
    assert herd(one, other) == Herd(2, 1, 0, 0.5)
    assert herd(one, other, run_id="one") == Herd(1, 0, 0, 0.0)
    assert herd(one, other, run_id="other") == Herd(1, 1, 0, 1.0)


def test_a_host_that_is_left_out_offers_no_room() -> None:
    told = Teller("one").start(a=1, b=1)
    told.run(1, "a", 1.0, 5.0)
    told.tell("host_left_out", 1.5, host="b", reason="lost")
    told.run(2, "a", 2.0, 6.0)
    told.run(3, "b", 3.0, 3.5)  # it is back, which only an award tells
    told.run(4, "a", 4.0, 6.0)
    assert herd(told) == Herd(4, 1, 0, 1 / 4)


def test_another_runs_hosts_offer_no_room() -> None:
    one, other = Teller("one").start(a=1), Teller("other").start(b=1)
    one.run(1, "a", 1.0, 5.0)
    one.run(2, "a", 2.0, 5.0)
    assert herd(one, other).herded == 0


def test_a_lost_action_leaves_its_host_and_so_do_those_of_a_client_that_died() -> None:
    told = Teller("one").start(a=1, b=1)
    told.place(1.0, 1, "a")
    told.retry(2.0, 1, "a")
    told.run(2, "a", 3.0, 4.0)
    assert herd(told).herded == 0
    dead, later = Teller("dead").start(a=1, b=1), Teller("later").start(9.0, a=1, b=1)
    dead.place(1.0, 1, "a")
    later.run(1, "a", 10.0, 11.0)
    assert herd(dead, later).herded == 0


def test_a_slot_that_is_free_before_its_client_says_so() -> None:
    told = Teller("one").start(a=1, b=1)
    told.run(1, "a", 1.0, 5.0)
    told.run(2, "a", 4.996, 6.0)
    assert herd(told) == Herd(2, 1, 0, 0.5)
    assert herd(told, settle_s=0.01) == Herd(2, 0, 1, 0.0)
    assert herd(told, settle_s=0.001) == Herd(2, 1, 0, 0.5)


def test_actions_here_are_no_awards() -> None:
    told = Teller("one").start(a=1, b=1)
    told.run(1, "local", 1.0, 5.0)
    told.run(2, "local", 2.0, 5.0)
    assert herd(told) == Herd(0, 0, 0, None)


def test_clocks_are_merged_finer_than_a_millisecond() -> None:
    """`at` has milliseconds only; here the second award comes 0.3 ms after the first action has left."""
    one, other = Teller("one", 0.0).start(a=1, b=1), Teller("other", 50.0).start(-50.0, a=1, b=1)
    for number in range(200):  # as many records as a real run has, so that the clocks' distance is well known
        time_s = 1.0 + number * 0.01037
        one.quote(time_s, 9, "a", None)
        other.quote(time_s - 50.0, 9, "a", None)
    one.run(1, "a", 4.0, 5.0004)
    other.run(1, "a", 5.0007 - 50.0, 6.0 - 50.0)
    assert herd(one, other).herded == 0
    other.records.pop()
    other.records.pop()
    other.run(1, "a", 5.0001 - 50.0, 6.0 - 50.0)
    assert herd(one, other).herded == 1


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(0, 20)), max_size=30),
    st.integers(1, 3),
    st.floats(0.0, 3.0),
)
def test_the_herd_index_is_a_share(actions: list[tuple[str, int, int]], slots: int, settle_s: float) -> None:
    told = Teller("one").start(-1.0, a=slots, b=slots, c=slots)
    happenings: list[tuple[float, int, int, str]] = []
    for number, (host, begin, length) in enumerate(actions):
        happenings += [(begin, 0, number, host), (begin + length, 1, number, host)]
    for time_s, ends, number, host in sorted(happenings):
        if ends:
            told.finish(time_s, number, host)
        else:
            told.place(time_s, number, host)
    exact, found = herd(told), herd(told, settle_s=settle_s)
    assert found.awards == exact.awards == len(actions)
    assert found.herded + found.passing == exact.herded
    assert found.index is None or 0.0 <= found.index <= 1.0


# --- fairness ---------------------------------------------------------------------------------------------


def build(run_id: str, begin: float, elapsed_s: float, work_s: Iterable[float], **slots: int) -> Teller:
    told = Teller(run_id).start(begin, **slots)
    for action, seconds in enumerate(work_s):
        told.run(action, next(iter(slots)), begin, begin + seconds)
    return told.end(begin + elapsed_s, elapsed_s)


def test_fairness_of_builds_that_shared_hosts() -> None:
    one = build("one", 0.0, 4.0, [2.0, 2.0], a=2)  # 4 s for 4 s of work on 2 slots: 2
    other = build("other", 1.0, 12.0, [3.0, 1.0], a=2)  # 6
    later = build("later", 20.0, 4.0, [2.0], a=2)
    elsewhere = build("elsewhere", 0.0, 50.0, [1.0], b=2)
    runs, _ = read_runs(merged(one, other, later, elsewhere))
    found = calibrate(runs).fairness
    assert found.slowdowns == pytest.approx({"one": 2.0, "other": 6.0})
    assert (found.groups, found.runs) == (1, 2)
    assert found.index == pytest.approx(64 / 80)
    assert calibrate(runs, "one").fairness == found
    assert calibrate(runs, "later").fairness.index is None


def test_a_build_that_bridges_others_makes_one_group() -> None:
    one = build("one", 0.0, 2.0, [1.0], a=1)
    bridge = build("bridge", 1.0, 9.0, [1.0], a=1, b=1)
    other = build("other", 5.0, 2.0, [1.0], b=1)
    runs, _ = read_runs(merged(one, bridge, other))
    assert calibrate(runs).fairness.groups == 1 and calibrate(runs).fairness.runs == 3


def test_groups_count_by_their_builds() -> None:
    fair = [build(f"fair{number}", 0.0, 2.0, [1.0], a=1) for number in range(4)]
    unfair = [build("quick", 10.0, 1.0, [1.0], a=1), build("slow", 10.0, 3.0, [1.0], a=1)]
    runs, _ = read_runs(merged(*fair, *unfair))
    found = calibrate(runs).fairness
    assert (found.groups, found.runs) == (2, 6)
    assert found.index == pytest.approx((4 * 1.0 + 2 * 0.8) / 6)


def test_a_build_whose_end_is_not_told_has_no_slowdown() -> None:
    one, other = build("one", 0.0, 2.0, [1.0], a=1), build("other", 0.0, 2.0, [1.0], a=1)
    other.records.pop()
    runs, _ = read_runs(merged(one, other))
    assert calibrate(runs).fairness.runs == 0


# --- records ----------------------------------------------------------------------------------------------

values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none(), max_size=2)
names = st.sampled_from(["run_id", "time_s", "at", "action", "host", "slots", "elapsed_s", "seconds", "terms", "event"])


@given(st.lists(st.tuples(st.integers(0, 5), names, values), max_size=8))
def test_no_record_is_a_fault(changes: list[tuple[int, str, object]]) -> None:
    """Whatever stands in a field, it is understood or counted, and the numbers can be had."""
    told = build("one", 0.0, 4.0, [2.0], a=2)
    told.quote(3.0, 7, "a", 1.0, base=1.0)
    records = told.records
    for index, name, value in changes:
        records[index % len(records)][name] = value
    runs, foreign = read_runs(records)
    assert 0 <= foreign <= len(changes)
    calibrate(runs)


def test_events_that_say_nothing_here_are_not_foreign() -> None:
    other: list[Record] = [
        {"schema": 1, "event": "action_queued"},
        {"schema": 1, "event": "of_tomorrow"},
        {"event": []},
    ]
    assert read_runs(other) == ({}, 0)
    assert read_runs([{"schema": 1, "event": "action_placed"}]) == ({}, 1)
