"""The shared page: what one process puts up, the others read, and never a half-written sample."""

import time

import pytest
from server_vocabulary import busy_process, other_process, wait_until

from rakefarm.market.bid import Commitments, Load
from rakefarm.server.scoreboard import NEVER, Cell, Scoreboard, WorkerBoard


def load(number: int) -> Load:
    """A sample of which every field says the same number."""
    real = float(number)
    return Load(number, real, real, number, number, owner_idle_s=real, busy_in_all=real)


def test_the_newest_sample_is_read_with_its_age() -> None:
    board = Scoreboard(1, 1)
    board.publish_load(load(1), time.monotonic() - 100)
    board.publish_load(load(7), time.monotonic() - 5)
    read = board.load()
    assert (read.cores, read.busy, read.memory_total, read.owner_idle_s, read.busy_in_all) == (7, 7.0, 7, 7.0, 7.0)
    assert 5 <= read.age_s < 60


def test_a_reader_never_sees_half_a_sample() -> None:
    board = Scoreboard(1, 1)
    board.publish_load(load(1), time.monotonic())
    board.drain()

    def publish_for_ever() -> None:
        number = 0
        while True:
            number = number % 1000 + 1
            board.publish_load(load(number), time.monotonic())

    seen = set()
    with busy_process(publish_for_ever):
        for _ in range(50_000):
            read = board.load()
            assert read.cores == read.busy == read.io_wait == read.memory_available == read.memory_total
            assert read.cores == read.owner_idle_s == read.busy_in_all
            assert 1 <= read.cores <= 1000
            assert board.draining
            seen.add(read.cores)
    assert len(seen) > 1, "the writer wrote meanwhile"


def test_a_reader_never_sees_half_a_number() -> None:
    board = Scoreboard(2, 1)

    def write_for_ever() -> None:
        while True:
            for number in (1, (1 << 63) - 1):
                board.write_cell(1, Cell(number, number, number, number, float(number)))

    seen = set()
    with busy_process(write_for_ever):
        wait_until(lambda: board.read_cell(1).waiting_since)
        for _ in range(50_000):
            cell = board.read_cell(1)
            numbers = {cell.running, cell.waiting, cell.leased, cell.closed}
            assert numbers <= {1, (1 << 63) - 1}
            seen |= numbers
    assert len(seen) == 2, "the writer wrote meanwhile"
    assert board.read_cell(0) == Cell()


def test_draining_stays_when_samples_follow() -> None:
    board = Scoreboard(1, 1)
    assert not board.draining
    board.drain()
    board.publish_load(load(1), 0.0)
    assert board.draining


def test_commitments_are_all_workers_together() -> None:
    board = Scoreboard(2, 5)
    first, second = WorkerBoard(board, 0), WorkerBoard(board, 1)
    first.begin(3, 100.0)
    second.begin(1, 50.0)
    turns = [second.queue(), second.queue()]
    second.count(leased=1)
    promised = board.commitments()
    assert (promised.slots, promised.running, promised.waiting, promised.leased) == (5, 2, 2, 1)
    assert promised.total == 5
    assert promised.ends_in_s == (pytest.approx(50, abs=5), pytest.approx(100, abs=5))
    second.end(1)
    for turn in turns:
        second.leave_queue(turn)
    promised = board.commitments()
    assert (promised.running, promised.waiting, promised.leased) == (1, 0, 1)
    assert promised.ends_in_s == (pytest.approx(100, abs=5),)


def test_another_process_sees_the_numbers() -> None:
    board = Scoreboard(1, 2)
    with other_process(lambda: WorkerBoard(board, 0).begin(1, 100.0)):
        assert board.commitments().running == 1
        assert board.commitments().ends_in_s == (pytest.approx(100, abs=20),)


def test_a_lease_becomes_the_command_that_it_was_for() -> None:
    board = Scoreboard(1, 2)
    worker = WorkerBoard(board, 0)
    worker.count(leased=1)
    assert board.commitments() == Commitments(slots=2, running=0, waiting=0, leased=1)
    worker.begin(0, 100.0, leased=True)
    promised = board.commitments()
    assert (promised.running, promised.leased) == (1, 0)


def test_a_lease_that_comes_to_nothing_is_taken_down() -> None:
    board = Scoreboard(1, 2)
    worker = WorkerBoard(board, 0)
    worker.count(leased=1)
    worker.count(leased=-1)
    assert board.commitments().total == 0
    with pytest.raises(AssertionError):
        worker.count(leased=-1)


def test_an_end_without_a_beginning_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        WorkerBoard(Scoreboard(1, 1), 0).end(0)


def test_a_command_that_is_overdue_still_runs() -> None:
    board = Scoreboard(1, 1)
    WorkerBoard(board, 0).begin(0, -5.0)
    (end,) = board.commitments().ends_in_s
    assert end < 0


def test_ends_are_in_order_whoever_began_first() -> None:
    board = Scoreboard(2, 4)
    workers = [WorkerBoard(board, 0), WorkerBoard(board, 1)]
    for slot, run_s in enumerate((40.0, 10.0, 30.0, 20.0)):
        workers[slot % 2].begin(slot, run_s)
    assert [round(end, -1) for end in board.commitments().ends_in_s] == [10, 20, 30, 40]


# --- a dead worker --------------------------------------------------------------------------------------


def test_what_a_dead_worker_had_put_up_is_cleared_and_nothing_else() -> None:
    board = Scoreboard(2, 3)
    dead, living = WorkerBoard(board, 0), WorkerBoard(board, 1)
    dead.begin(0, 100.0)
    dead.begin(2, 100.0)
    dead.count(leased=1, closed=4)
    dead.queue()
    living.begin(1, 50.0)
    turn = living.queue()
    assert not living.is_next(turn)
    board.clear_worker(0)
    assert board.read_cell(0) == Cell()
    promised = board.commitments()
    assert (promised.running, promised.waiting, promised.leased) == (1, 1, 0)
    assert promised.ends_in_s == (pytest.approx(50, abs=5),)
    assert living.is_next(turn), "the dead one's turn is over"


def test_a_slot_that_has_a_new_holder_is_not_cleared_with_the_old_one() -> None:
    """The kernel frees it before the listener hears of the death."""
    board = Scoreboard(2, 1)
    dead, living = WorkerBoard(board, 0), WorkerBoard(board, 1)
    dead.begin(0, 100.0)
    living.begin(0, 50.0)
    board.clear_worker(0)
    assert board.commitments().ends_in_s == (pytest.approx(50, abs=5),)


def wait_a_tick() -> None:
    """Until the clock has moved: two that begin to wait at the same moment are both next."""
    now = time.monotonic()
    wait_until(lambda: time.monotonic() > now)


# --- turns ----------------------------------------------------------------------------------------------


def test_turns_are_first_come_first_served_over_all_workers() -> None:
    board = Scoreboard(2, 1)
    workers = [WorkerBoard(board, 0), WorkerBoard(board, 1)]
    order = [0, 1, 1, 0, 1, 0, 0]
    turns = []
    for number in order:
        turns.append((workers[number], workers[number].queue()))
        wait_a_tick()
    while turns:
        assert [worker.is_next(turn) for worker, turn in turns] == [True] + [False] * (len(turns) - 1)
        assert not any(worker.is_next(None) for worker in workers), "who comes now waits, too"
        worker, turn = turns.pop(0)
        worker.leave_queue(turn)
    assert all(worker.is_next(None) for worker in workers)
    assert board.longest_waiting() == NEVER


def test_who_leaves_the_queue_before_its_turn_holds_up_nobody() -> None:
    board = Scoreboard(2, 1)
    first, second = WorkerBoard(board, 0), WorkerBoard(board, 1)
    early = first.queue()
    wait_a_tick()
    middle, late = second.queue(), first.queue()
    second.leave_queue(middle)
    assert first.is_next(early) and not first.is_next(late)
    first.leave_queue(early)
    assert first.is_next(late)
    assert board.commitments().waiting == 1


def test_who_steps_aside_lets_others_pass_and_keeps_its_turn() -> None:
    board = Scoreboard(2, 1)
    first, second = WorkerBoard(board, 0), WorkerBoard(board, 1)
    early = first.queue()
    wait_a_tick()
    late = second.queue()
    first.step_aside(early, True)
    assert second.is_next(late) and not first.is_next(early)
    assert board.commitments().waiting == 1, "it does not wait for a slot"
    second.leave_queue(late)
    assert second.is_next(None) and not first.is_next(early)
    late = second.queue()
    first.step_aside(early, False)
    assert first.is_next(early) and not second.is_next(late), "it has waited longer"
    first.step_aside(early, False)
    first.leave_queue(early)
    assert second.is_next(late)


def test_who_leaves_while_aside_is_gone() -> None:
    board = Scoreboard(1, 1)
    worker = WorkerBoard(board, 0)
    turn = worker.queue()
    worker.step_aside(turn, True)
    worker.leave_queue(turn)
    worker.step_aside(turn, False)
    assert board.read_cell(0) == Cell()


def test_connections_closed_are_counted() -> None:
    board = Scoreboard(1, 1)
    worker = WorkerBoard(board, 0)
    worker.count(closed=1)
    worker.count(closed=1)
    assert board.read_cell(0).closed == 2


# --- the host's standing --------------------------------------------------------------------------------


def test_the_speed_is_learned_and_another_process_sees_it() -> None:
    board = Scoreboard(1, 1, speed=2.0)
    assert board.speed == 2.0
    with other_process(lambda: board.learn(1.0, 1.0, 1.0)):
        assert 1.0 < board.speed < 2.0, "it took twice as long as it would at speed 2"


def test_faults_are_counted_and_forgotten() -> None:
    board = Scoreboard(1, 1, speed=2.0)
    assert board.faults(100.0) == 0.0
    board.add_fault(100.0)
    board.add_fault(100.0)
    assert board.faults(100.0) == pytest.approx(2.0, abs=0.2)
    wait_until(lambda: board.faults(1e-3) < 0.01)
    assert board.speed == 2.0
