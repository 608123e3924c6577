"""The door: who stands there, who must go, who is shut out."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from rakefarm.server import door
from rakefarm.server.door import Board, Door

Arrive = Callable[..., tuple[int | None, socket.socket]]


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def keeper(board: Board) -> Iterator[Door]:
    """Four places, two of one address."""
    keeper = Door(board, 4, 2, 5.0, 60.0)
    yield keeper
    keeper.close()


@pytest.fixture
def arrive(keeper: Door) -> Iterator[Arrive]:
    """`arrive(address)`: its ticket, and the socket of who came."""
    sockets = []

    def arrive(address: str = "192.0.2.1") -> tuple[int | None, socket.socket]:
        ours, theirs = socket.socketpair()
        sockets.extend((ours, theirs))
        theirs.settimeout(5.0)
        return keeper.admit(ours, address), theirs

    yield arrive
    for each in sockets:
        each.close()


def is_sent_away(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], float]:
    """`clock(seconds)` lets so much time pass; answers the time."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def advance(seconds: float) -> float:
        nonlocal now
        now += seconds
        return now

    return advance


def test_an_address_that_has_too_many_for_a_while_loses_those_that_have_stood_longest(
    arrive: Arrive, keeper: Door, clock: Callable[[float], float]
) -> None:
    people = []
    for _ in range(3):
        people.append(arrive()[1])
        clock(0.01)
    assert not any(is_sent_away(each) for each in people), "each may yet prove itself"
    keeper.look(clock(0.3))
    assert [is_sent_away(each) for each in people] == [True, False, False]


def test_who_has_said_something_stays_longer(
    arrive: Arrive, board: Board, keeper: Door, clock: Callable[[float], float]
) -> None:
    first, (_, second), (_, third) = arrive(), arrive(), arrive()
    clock(0.01)
    fourth = arrive()[1]
    assert first[0] is not None
    board.tell(first[0], door.SPEAKS)
    second.sendall(b"x")  # its worker has not come to that yet
    keeper.look(clock(0.3))
    assert [is_sent_away(each) for each in (first[1], second, third, fourth)] == [False, False, True, True]


def test_when_all_places_are_taken_the_address_with_most_loses_one(arrive: Arrive) -> None:
    many = [arrive("192.0.2.1")[1] for _ in range(2)]
    others = [arrive(f"192.0.2.{number}")[1] for number in (2, 3, 4)]
    assert [is_sent_away(each) for each in [*many, *others]] == [True, False, False, False, False]


def test_who_is_inside_takes_no_place(arrive: Arrive, board: Board) -> None:
    people = []
    for _ in range(20):
        ticket, sock = arrive()
        assert ticket is not None
        board.tell(ticket, door.INSIDE)
        people.append(sock)
    arrive()
    assert not any(is_sent_away(each) for each in people)


def test_who_fails_is_shut_out_for_longer_each_time_until_it_succeeds(
    arrive: Arrive, board: Board, keeper: Door, clock: Callable[[float], float]
) -> None:
    def fail() -> None:
        ticket = arrive()[0]
        assert ticket is not None
        board.tell(ticket, door.FAILED)
        keeper.look(clock(0.0))

    for pause_s in (0.1, 0.2, 0.4, 0.8):
        fail()
        clock(pause_s * 0.9)
        assert arrive()[0] is None, "shut out"
        assert arrive("192.0.2.2")[0] is not None, "nobody else is"
        clock(pause_s * 0.2)
    for _ in range(40):
        fail()
        clock(60.1)
    ticket = arrive()[0]
    assert ticket is not None, "never for longer than that"
    board.tell(ticket, door.INSIDE)
    fail()
    clock(0.11)
    assert arrive()[0] is not None, "forgiven, so it begins again"


def test_a_worker_that_says_nothing_any_more_holds_no_place(
    arrive: Arrive, keeper: Door, clock: Callable[[float], float]
) -> None:
    tickets = [arrive()[0] for _ in range(50)]
    assert len(set(tickets)) == 50, "those that were sent away have theirs until their workers have seen it"
    keeper.look(clock(10.0))
    assert arrive()[0] == tickets[0]


def test_there_is_an_end_of_tickets(arrive: Arrive, board: Board) -> None:
    for ticket in range(door.TICKETS):
        board.set(ticket, door.SILENT)
    assert arrive()[0] is None
    board.tell(door.NO_TICKET, door.GONE)  # goes nowhere
