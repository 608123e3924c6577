"""Turns between users: fewest slots, then served longest ago, then waiting longest."""

import itertools
import time

from rakefarm.server.scoreboard import Scoreboard, WorkerBoard
from rakefarm.server.users import ROWS, Users, number_of

ANNA, BERT, CARL = (number_of(name) for name in ("anna", "bert", "carl"))


def test_numbers_are_of_names() -> None:
    assert len({ANNA, BERT, CARL, 0}) == 4 and number_of("anna") == ANNA
    assert 0 < number_of("\udcff") < 1 << 48


def serve(workers: list[WorkerBoard], waiting: dict[str, list[tuple[int, int]]], slots: int, rounds: int) -> list[str]:
    """Let everybody wait again once served; the slot that was given longest ago comes free. Who got one, in order."""
    served = []
    free = list(range(slots))
    held: list[int] = []
    for _ in range(rounds):
        if not free:
            slot = held.pop(0)
            workers[0].let_go(slot)
            free.append(slot)
        name, worker, turn = next(
            (name, worker, turn)
            for name, turns in waiting.items()
            for worker, turn in turns
            if workers[worker].is_next(turn)
        )
        slot = free.pop()
        workers[worker].hold(slot, number_of(name))
        held.append(slot)
        workers[worker].leave_queue(turn)
        waiting[name].remove((worker, turn))
        waiting[name].append((worker, workers[worker].queue(number_of(name))))
        served.append(name)
        time.sleep(0.0002)  # the clock must move
    return served


def crowd(slots: int, **clients: int) -> tuple[list[WorkerBoard], dict[str, list[tuple[int, int]]]]:
    board = Scoreboard(3, slots)
    workers = [WorkerBoard(board, number) for number in range(3)]
    spread = itertools.cycle(range(3))
    waiting: dict[str, list[tuple[int, int]]] = {}
    for name, count in clients.items():
        waiting[name] = []
        for _ in range(count):
            worker = next(spread)
            waiting[name].append((worker, workers[worker].queue(number_of(name))))
            time.sleep(0.0002)
    return workers, waiting


def test_ten_clients_of_one_user_get_no_more_than_one_of_another() -> None:
    for slots in (1, 2, 4):
        workers, waiting = crowd(slots, anna=10, bert=1)
        served = serve(workers, waiting, slots, 40)
        if slots <= 2:
            assert abs(served.count("anna") - served.count("bert")) <= 2, (slots, served)
        assert "bert" in served[:2], "it came last, and is among the first"


def test_three_users_take_turns() -> None:
    workers, waiting = crowd(1, anna=5, bert=1, carl=3)
    served = serve(workers, waiting, 1, 30)
    assert all(set(served[place : place + 3]) == {"anna", "bert", "carl"} for place in range(3, 27))


def test_clients_of_one_user_are_served_first_come_first_served() -> None:
    workers, waiting = crowd(1, anna=6)
    order = list(waiting["anna"])
    for worker, turn in order:
        assert [workers[w].is_next(t) for w, t in waiting["anna"]].index(True) == 0
        workers[worker].leave_queue(turn)
        waiting["anna"].pop(0)


def test_what_nobody_else_wants_one_user_may_have() -> None:
    workers, waiting = crowd(4, anna=8)
    assert serve(workers, waiting, 4, 20) == ["anna"] * 20


def test_what_a_dead_worker_held_is_let_go() -> None:
    users = Users(2, 2)
    users.hold(0, 0, ANNA)
    users.hold(1, 1, ANNA)
    users.publish(0, [(BERT, 1.0)])
    assert users.rank(ANNA, 0.0)[0] == 2 and users.next_in_turn() is not None
    users.clear_worker(0)
    assert users.rank(ANNA, 0.0)[0] == 1 and users.next_in_turn() is None


def test_more_users_than_rows_lose_nobody_that_has_waited_longest() -> None:
    users = Users(1, 1)
    users.publish(0, [(number_of(str(number)), float(number)) for number in range(100, 100 + 3 * ROWS)])
    following = users.next_in_turn()
    assert following is not None and following[2] == 100.0
