"""The shared page: what one process puts up, the others read, and never a half-written sample."""

import time

from server_vocabulary import busy_process, other_process, wait_until

from rakefarm.market.bid import Commitments, Load
from rakefarm.server.scoreboard import Cell, Scoreboard, WorkerBoard

LEASE_S = 30.0


def load(number: int) -> Load:
    """A sample of which every field says the same number."""
    return Load(number, float(number), float(number), number, number)


def test_the_newest_sample_is_read_with_its_age() -> None:
    board = Scoreboard(1, 1)
    board.publish_load(load(1), time.monotonic() - 100)
    board.publish_load(load(7), time.monotonic() - 5)
    read = board.load()
    assert (read.cores, read.busy_cores, read.memory_total) == (7, 7.0, 7)
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
            assert read.cores == read.busy_cores == read.io_wait == read.memory_available == read.memory_total
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
        wait_until(lambda: board.read_cell(1).leased_until)
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
    first, second = WorkerBoard(board, 0, LEASE_S), WorkerBoard(board, 1, LEASE_S)
    first.count(running=1)
    second.count(running=1, waiting=2)
    second.lease()
    assert board.commitments() == Commitments(slots=5, running=2, waiting=2, leased=1)
    second.count(running=-1, waiting=-2)
    assert board.commitments() == Commitments(slots=5, running=1, waiting=0, leased=1)


def test_another_process_sees_the_numbers() -> None:
    board = Scoreboard(1, 2)
    with other_process(lambda: WorkerBoard(board, 0, LEASE_S).count(running=1)):
        assert board.commitments().running == 1


def test_a_dead_workers_cell_is_cleared() -> None:
    board = Scoreboard(1, 2)
    WorkerBoard(board, 0, LEASE_S).count(running=1)
    board.write_cell(0, Cell())
    assert board.commitments().total == 0


def test_a_lease_is_held_until_it_is_released() -> None:
    board = Scoreboard(1, 2)
    worker = WorkerBoard(board, 0, LEASE_S)
    lease, other = worker.lease(), worker.lease()
    assert lease != other and lease and other
    assert worker.holds(lease) and not worker.holds(0)
    assert board.commitments().leased == 2
    worker.release(lease)
    worker.release(lease)
    worker.release(12345)
    assert not worker.holds(lease)
    assert board.commitments().leased == 1


def test_a_lease_becomes_the_command_that_it_was_for() -> None:
    board = Scoreboard(1, 2)
    worker = WorkerBoard(board, 0, LEASE_S)
    lease = worker.lease()
    worker.count(running=1, lease=lease)
    assert board.commitments() == Commitments(slots=2, running=1, waiting=0, leased=0)


def test_a_lease_ends_by_itself() -> None:
    board = Scoreboard(1, 2)
    worker = WorkerBoard(board, 0, 0.0)
    lease = worker.lease()
    assert not worker.holds(lease)
    assert board.commitments().leased == 0


def test_connections_closed_are_counted() -> None:
    board = Scoreboard(1, 1)
    worker = WorkerBoard(board, 0, LEASE_S)
    worker.count(closed=1)
    worker.count(closed=1)
    assert board.read_cell(0).closed == 2
