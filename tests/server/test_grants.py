"""Grants: a slot and its licences together or nothing, no licence twice, and all of it free when its holder is killed."""

import os
import random
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_vocabulary import DEADLINE_S, other_process

from rakefarm.market.needs import parse_licenses
from rakefarm.server.grants import Grant, Grants, WorkerGrants


@pytest.fixture
def grants(tmp_path: Path) -> Iterator[Grants]:
    """Three slots, one licence of acme and two of bcc."""
    made = Grants(str(tmp_path), 3, {"acme": 1, "bcc": 2})
    yield made
    os.close(made.slots.event)


def count_free(grants: Grants, *licenses: str) -> int:
    """How many grants with these licences a fresh worker could take; it gives them back."""
    view = grants.open()
    taken = []
    while (grant := view.try_take(licenses)) is not None:
        taken.append(grant)
    for grant in taken:
        view.give_back(grant)
    return len(taken)


def take(view: WorkerGrants, *licenses: str) -> Grant:
    grant = view.try_take(licenses)
    assert grant is not None
    return grant


def test_two_holders_never_have_one_licence(grants: Grants) -> None:
    first, second = grants.open(), grants.open()
    held = take(first, "acme")
    assert held.licenses == (("acme", 0),)
    assert first.try_take(["acme"]) is None and second.try_take(["acme"]) is None
    first.give_back(held)
    assert take(second, "acme").licenses == (("acme", 0),)


def test_as_many_holders_as_there_are_licences(grants: Grants) -> None:
    first, second = grants.open(), grants.open()
    numbers = {dict(take(view, "bcc").licenses)["bcc"] for view in (first, second)}
    assert numbers == {0, 1}
    assert first.try_take(["bcc"]) is None
    assert second.try_take() is not None, "without a licence there is still a slot"


@pytest.mark.parametrize("wanted", [("acme",), ("bcc", "acme"), ("unknown",), ("bcc", "unknown")])
def test_a_licence_that_is_missing_gives_everything_back(grants: Grants, wanted: tuple[str, ...]) -> None:
    holder, other = grants.open(), grants.open()
    take(holder, "acme")
    for _ in range(5):
        assert other.try_take(wanted) is None
    assert count_free(grants) == 2, "the slots"
    assert count_free(grants, "bcc") == 2, "and the licences that there were"


def test_a_missing_licence_wakes_nobody(grants: Grants) -> None:
    """Or who waits for one would be woken by itself for ever."""
    holder, other = grants.open(), grants.open()
    take(holder, "acme")
    assert other.try_take(["acme"]) is None
    assert not select.select([other.event], [], [], 0)[0]
    assert other.lacking(["bcc", "acme"]) == "acme"
    assert not select.select([other.event], [], [], 0)[0]


def test_without_a_slot_no_licence_is_taken(grants: Grants) -> None:
    holder, other = grants.open(), grants.open()
    held = [take(holder) for _ in range(3)]
    assert other.try_take(["acme"]) is None
    assert other.lacking(["acme"]) == ""
    holder.give_back(held[0])
    assert take(other, "acme").slot == held[0].slot


def test_who_gives_a_licence_back_wakes_those_that_wait(grants: Grants) -> None:
    holder, waiter = grants.open(), grants.open()
    held = take(holder, "acme")
    assert not select.select([waiter.event], [], [], 0)[0]
    holder.give_back(held)
    assert select.select([waiter.event], [], [], 0)[0]
    assert waiter.try_take(["acme"], woken=True) is not None


def test_lacking_names_the_first_and_holds_nothing(grants: Grants) -> None:
    view, other = grants.open(), grants.open()
    assert view.lacking([]) == view.lacking(["acme", "bcc"]) == view.lacking(["unknown"]) == ""
    take(other, "bcc")
    assert view.lacking(["bcc"]) == "", "there is another"
    take(view, "bcc")
    assert view.lacking(["acme", "bcc"]) == other.lacking(["bcc"]) == "bcc"
    assert count_free(grants, "acme") == 1


def test_what_is_killed_frees_both(grants: Grants) -> None:
    def hold_all() -> None:
        view = grants.open()
        for licenses in (("acme", "bcc"), ("bcc",), ()):
            take(view, *licenses)

    with other_process(hold_all) as holder:
        assert count_free(grants) == 0
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        assert count_free(grants) == 3
        assert count_free(grants, "acme") == 1
        assert count_free(grants, "bcc") == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_and_workers_never_share(grants: Grants, workers: int) -> None:
    """Each holder writes its name where the licence's number points, and finds it there until it gives it back."""
    views = [grants.open() for _ in range(workers)]
    holders: dict[tuple[str, int], int] = {}
    clashes: list[object] = []

    def take_and_give_back(number: int) -> None:
        generator = random.Random(number)
        view = views[number % workers]
        for _ in range(300):
            wanted = generator.choice([(), ("acme",), ("bcc",), ("acme", "bcc")])
            grant = view.try_take(wanted)
            if grant is None:
                view.lacking(wanted)
                continue
            places = [("slot", grant.slot), *grant.licenses]
            clashes.extend(place for place in places if holders.setdefault(place, number) != number)
            for place in places:
                del holders[place]
            view.give_back(grant)

    threads = [threading.Thread(target=take_and_give_back, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not clashes
    assert (count_free(grants), count_free(grants, "acme"), count_free(grants, "bcc")) == (3, 1, 2)


def test_a_licences_name_is_no_file_name(tmp_path: Path) -> None:
    made = Grants(str(tmp_path / "place"), 1, {"../outside": 1, "a/b": 1, "": 1})
    held = take(made.open(), "../outside", "a/b", "")
    os.close(made.slots.event)
    assert held.licenses == (("../outside", 0), ("a/b", 0), ("", 0))
    assert sorted(os.listdir(tmp_path)) == ["place"]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], {}),
        (["acme"], {"acme": 1}),
        (["acme=3", "bcc", "acme=2"], {"acme": 2, "bcc": 1}),
        (["acme="], {"acme": 1}),
        (["acme=4096"], {"acme": 4096}),
    ],
)
def test_counts_of_licences(entries: list[str], expected: dict[str, int]) -> None:
    assert parse_licenses(entries) == expected


@pytest.mark.parametrize("entry", ["", "=3", "acme=0", "acme=-1", "acme=x", "acme=4097", "acme=1e3", "acme=٣"])
def test_what_is_no_licence_is_refused(entry: str) -> None:
    with pytest.raises(ValueError):
        parse_licenses([entry])
