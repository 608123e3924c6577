"""Whether an action may still find a host."""

from rakefarm.client.refusals import Refusals, Verdict

HOSTS = ("a", "b")


def noted(**reasons: bool) -> Refusals:
    refusals = Refusals()
    for host, lasting in reasons.items():
        refusals.note("task", host, f"{host} won't", lasting)
    return refusals


def test_it_is_open_until_every_host_has_declined() -> None:
    assert Refusals().verdict("task", HOSTS, 3) is Verdict.OPEN
    assert noted(a=True).verdict("task", HOSTS, 3) is Verdict.OPEN
    assert noted(a=True, b=True).verdict("other", HOSTS, 3) is Verdict.OPEN


def test_all_for_good_is_hopeless() -> None:
    assert noted(a=True, b=True).verdict("task", HOSTS, 3) is Verdict.HOPELESS


def test_no_hosts_at_all_is_hopeless() -> None:
    assert Refusals().verdict("task", (), 3) is Verdict.HOPELESS


def test_one_for_the_moment_is_asked_again_so_many_times() -> None:
    refusals = noted(a=True, b=False)
    for rounds in (1, 2):
        assert refusals.verdict("task", HOSTS, 3) is Verdict.LATER
        assert refusals.rounds("task") == rounds
    assert refusals.verdict("task", HOSTS, 3) is Verdict.HOPELESS
    assert noted(a=False).verdict("task", ("a",), 1) is Verdict.HOPELESS, "when only one attempt is wanted"


def test_who_is_to_be_asked_again_is_open_until_it_answers() -> None:
    refusals = noted(a=True, b=False)
    assert set(refusals.forget_passing("task")) == {"b"}
    assert set(refusals.forget_passing("task")) == set()
    assert refusals.verdict("task", HOSTS, 3) is Verdict.OPEN
    assert set(refusals.forget_passing("unheard of")) == set()


def test_a_host_that_bids_after_all_is_forgotten() -> None:
    for lasting in (True, False):
        refusals = noted(a=lasting, b=lasting)
        refusals.forget("task", "a")
        assert refusals.verdict("task", HOSTS, 3) is Verdict.OPEN
    Refusals().forget("task", "a")


def test_only_hosts_that_are_left_count() -> None:
    refusals = noted(a=True, gone=False)
    assert refusals.verdict("task", ("a",), 3) is Verdict.HOPELESS


def test_every_host_is_told_with_its_reason() -> None:
    text = noted(a=True, b=False).explain("task", {"c": "connection refused"})
    assert sorted(text.split("; ")) == ["a: a won't", "b: b won't", "c: connection refused"]
    assert Refusals().explain("task", {}) == "there are no hosts"
