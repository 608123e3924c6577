"""Slots: taken plus free is always all of them, one holder each, and none is lost with its holder."""

import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from server_vocabulary import DEADLINE_S, other_process, wait_until

from rakefarm.slots import LOOK_AGAIN_S, Slots


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[Slots]:
    made = Slots(str(tmp_path / "slots"), 2)
    yield made
    os.close(made.event)


def count_free(slots: Slots) -> int:
    """How many slots a fresh worker could take; it gives them back."""
    view = slots.open()
    taken = []
    while (number := view.try_take()) is not None:
        taken.append(number)
    for number in taken:
        view.give_back(number)
    view.close()
    return len(taken)


def test_no_more_than_there_are(slots: Slots) -> None:
    first, second = slots.open(), slots.open()
    assert {first.try_take(), second.try_take()} == {0, 1}
    assert first.try_take() is None
    assert second.try_take() is None
    assert count_free(slots) == 0


def test_a_slot_given_back_is_free_for_another_worker(slots: Slots) -> None:
    first, second = slots.open(), slots.open()
    taken = [first.try_take(), first.try_take()]
    assert second.try_take() is None
    first.give_back(1)
    assert second.try_take() == 1
    assert sorted(taken) == [0, 1]  # type: ignore[type-var]


def test_a_slot_that_is_not_held_can_not_be_given_back(slots: Slots) -> None:
    with pytest.raises(AssertionError):
        slots.open().give_back(0)


def test_a_killed_holders_slot_is_free_at_once(slots: Slots) -> None:
    def hold_both() -> None:
        view = slots.open()
        assert {view.try_take(), view.try_take()} == {0, 1}

    with other_process(hold_both) as holder:
        assert count_free(slots) == 0
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        assert count_free(slots) == 2


def test_a_command_started_by_the_holder_does_not_keep_the_slot(slots: Slots) -> None:
    """A program that outlives the worker has none of its files: they are closed when it is executed."""
    view = slots.open()
    view.try_take()
    assert not any(os.get_inheritable(file) for file in (slots.event, view.event))


def test_a_waiter_is_woken_when_a_slot_is_given_back(slots: Slots) -> None:
    holder, waiter = slots.open(), slots.open()
    for _ in range(2):
        holder.try_take()
    assert waiter.try_take() is None
    woken: list[int | None] = []

    def wait() -> None:
        poller = select.poll()
        poller.register(waiter.event, select.POLLIN)
        while not woken:
            poller.poll()  # no time limit: nothing but the event ends it
            slot = waiter.try_take(woken=True)
            if slot is not None:
                woken.append(slot)

    thread = threading.Thread(target=wait)
    thread.start()
    holder.give_back(1)
    thread.join(DEADLINE_S)
    assert woken == [1]


def test_who_wakes_and_takes_a_slot_wakes_the_next(slots: Slots) -> None:
    """Two releases may be one event; both waiters must get their slot."""
    holder, first, second = slots.open(), slots.open(), slots.open()
    for _ in range(2):
        holder.try_take()
    holder.give_back(0)
    holder.give_back(1)
    assert first.try_take(woken=True) == 0
    assert select.select([second.event], [], [], 0)[0], "the wake-up was passed on"
    assert second.try_take(woken=True) == 1


def test_the_listener_wakes_waiters_for_a_dead_worker(slots: Slots) -> None:
    view = slots.open()
    assert not select.select([view.event], [], [], 0)[0]
    slots.wake_waiters()
    assert select.select([view.event], [], [], 0)[0]


def test_who_waits_is_seen_by_others_and_not_by_itself(slots: Slots) -> None:
    first, second = slots.open(), slots.open()
    with first.waiting(), first.waiting():
        assert second.others_wait and not first.others_wait
        with second.waiting():
            assert first.others_wait
        assert not first.others_wait
    assert not second.others_wait


def test_anyone_can_count_what_is_taken(slots: Slots) -> None:
    first, second = slots.open(), slots.open()
    assert first.try_take() == 0
    assert (first.count_taken(), second.count_taken()) == (1, 1)
    assert second.try_take() == 1
    assert (first.count_taken(), second.count_taken()) == (2, 2)
    first.close()
    assert second.count_taken() == 1


def test_an_event_that_nobody_takes_does_no_harm(slots: Slots) -> None:
    view = slots.open()
    for _ in range(70_000):  # more than a pipe holds
        slots.wake_waiters()
    assert view.try_take(woken=True) == 0


def test_a_waiter_looks_for_itself_often_enough() -> None:
    assert LOOK_AGAIN_S <= 0.5, "a killed holder bumps nothing"


def test_threads_of_one_worker_never_share_a_slot(slots: Slots) -> None:
    view = slots.open()
    holding: set[int] = set()
    clashes: list[int] = []

    def take_and_give_back() -> None:
        for _ in range(300):
            number = view.try_take()
            if number is not None:
                if number in holding:
                    clashes.append(number)
                holding.add(number)
                holding.remove(number)
                view.give_back(number)

    threads = [threading.Thread(target=take_and_give_back) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not clashes
    wait_until(lambda: count_free(slots) == 2)


class SlotsMachine(RuleBasedStateMachine):
    """Workers that take, give back and die in any order."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self._directory = tempfile.TemporaryDirectory()
        self._slots = Slots(self._directory.name + "/slots", 3)
        self._views = [self._slots.open() for _ in range(3)]
        self._held: list[tuple[int, int]] = []

    @rule(worker=st.integers(0, 2))
    def take(self, worker: int) -> None:
        number = self._views[worker].try_take()
        assert (number is None) == (len(self._held) == 3)
        if number is not None:
            assert number not in [held for _, held in self._held]
            self._held.append((worker, number))

    @precondition(lambda self: self._held)
    @rule(which=st.integers(0, 2))
    def give_back(self, which: int) -> None:
        worker, number = self._held.pop(which % len(self._held))
        self._views[worker].give_back(number)

    @rule(worker=st.integers(0, 2))
    def die(self, worker: int) -> None:
        self._views[worker].close()
        self._held = [(holder, number) for holder, number in self._held if holder != worker]
        self._views[worker] = self._slots.open()

    @invariant()
    def taken_and_free_are_all(self) -> None:
        assert len(self._held) + count_free(self._slots) == 3

    def teardown(self) -> None:
        for view in self._views:
            view.close()
        os.close(self._slots.event)
        self._directory.cleanup()


TestSlotsMachine = SlotsMachine.TestCase
TestSlotsMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
