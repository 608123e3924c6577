"""Runner threads: each item is done once, no more runners than wanted, and what goes wrong comes out."""

import threading
from collections.abc import Iterator

import pytest

from rakefarm.client.crew import Crew

SOON_S = 10.0


class Log:
    """What was done, by which thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.items: list[int] = []
        self.threads: set[int] = set()
        self.at_once = 0
        self.most = 0

    def __call__(self, item: int) -> None:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.items.append(item)
            self.threads.add(threading.get_ident())
        with self.lock:
            self.at_once -= 1


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def crew(log: Log) -> Iterator[Crew[int]]:
    made = Crew("test", log)
    yield made
    made.stop()


def test_nothing_to_do_is_settled(crew: Crew[int], log: Log) -> None:
    crew.wait_settled()
    assert log.items == []


@pytest.mark.parametrize("most", [1, 4])
def test_each_item_is_done_once(crew: Crew[int], log: Log, most: int) -> None:
    crew.grow_to(most)
    for item in range(500):
        crew.submit(item)
    crew.wait_settled()
    assert sorted(log.items) == list(range(500))
    assert log.most <= most and len(log.threads) <= most


def test_one_runner_keeps_the_order(crew: Crew[int], log: Log) -> None:
    for item in range(100):
        crew.submit(item)
    crew.wait_settled()
    assert log.items == list(range(100))


def test_as_many_work_at_once_as_there_is_work_for() -> None:
    together = threading.Barrier(3)
    crew: Crew[int] = Crew("test", lambda item: together.wait(SOON_S) and None)
    crew.grow_to(3)
    for item in range(3):
        crew.submit(item)
    crew.wait_settled()
    crew.stop()
    assert not together.broken


def test_a_smaller_crew_is_not_made_of_a_larger(crew: Crew[int], log: Log) -> None:
    crew.grow_to(3)
    crew.grow_to(1)
    for item in range(50):
        crew.submit(item)
    crew.wait_settled()
    assert len(log.items) == 50


def test_what_a_runner_submits_last_it_does_itself() -> None:
    done: list[tuple[int, int]] = []

    def perform(item: int) -> None:
        done.append((item, threading.get_ident()))
        if item < 10:
            crew.end_with(lambda: crew.submit(item + 1))

    crew: Crew[int] = Crew("test", perform)
    crew.submit(0)
    crew.wait_settled()
    crew.stop()
    assert [item for item, _ in done] == list(range(11))
    assert len({thread for _, thread in done}) == 1


@pytest.mark.parametrize("most", [1, 3])
def test_what_runners_submit_is_done_before_all_is_settled(most: int) -> None:
    done: list[int] = []

    def perform(item: int) -> None:
        done.append(item)
        if item < 100:

            def split() -> None:
                crew.submit(2 * item)
                crew.submit(2 * item + 1)

            crew.end_with(split)

    crew: Crew[int] = Crew("test", perform)
    crew.grow_to(most)
    crew.submit(1)
    crew.wait_settled()
    crew.stop()
    assert sorted(done) == list(range(1, 200))


def test_an_idle_runner_says_so() -> None:
    idle = threading.Event()
    crew: Crew[int] = Crew("test", lambda item: None, idle.set)
    crew.submit(1)
    assert idle.wait(SOON_S)
    crew.stop()


def test_what_goes_wrong_comes_out_and_nobody_waits_for_ever() -> None:
    def perform(item: int) -> None:
        raise KeyError(item)

    crew: Crew[int] = Crew("test", perform)
    for item in range(3):
        crew.submit(item)
    with pytest.raises(KeyError):
        crew.wait_settled()
    assert isinstance(crew.error, KeyError)
    crew.stop()


def test_stopping_begins_nothing_more() -> None:
    begun, go = threading.Event(), threading.Event()
    done: list[int] = []

    def perform(item: int) -> None:
        begun.set()
        assert go.wait(SOON_S)
        done.append(item)

    crew: Crew[int] = Crew("test", perform)
    for item in range(5):
        crew.submit(item)
    assert begun.wait(SOON_S)
    stopping = threading.Thread(target=crew.stop)
    stopping.start()
    while not crew._stopping:
        pass
    go.set()
    stopping.join(SOON_S)
    assert done == [0]


def test_a_crew_without_runners_stops() -> None:
    crew: Crew[int] = Crew("test", lambda item: None)
    crew.stop()


def test_whoever_would_wait_elsewhere_is_told_of_what_goes_wrong() -> None:
    def perform(item: int) -> None:
        raise KeyError(item)

    told = threading.Event()
    crew: Crew[int] = Crew("test", perform, failed=told.set)
    crew.submit(1)
    assert told.wait(SOON_S) and isinstance(crew.error, KeyError)
    crew.stop()


def test_a_runner_whose_start_was_interrupted_is_not_waited_for(
    crew: Crew[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            crew.submit(1)
    crew.stop()
