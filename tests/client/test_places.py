"""Places on this machine: a slot and a token or nothing, lent by who only waits, and never waited for without end."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from server_vocabulary import wait_until

from rakefarm.client import places as module
from rakefarm.client.places import NESTED, Place, Places, shared_path

SPIN = "while :; do :; done"


class World:
    """Builds of one user: each `build()` has places of its own on the same slots."""

    def __init__(self, scratch: Path, stack: ExitStack) -> None:
        self.environ = {"XDG_CACHE_HOME": str(scratch)}
        self.warnings: list[str] = []
        self._stack = stack
        self.cancel = os.eventfd(0, os.EFD_CLOEXEC)

    def build(self, slots: int = 1, **environ: str) -> Places:
        return Places({**self.environ, **environ}, slots, self.warnings.append)

    def take(self, places: Places) -> Place:
        """A place that can be had at once or very soon."""
        place = self._stack.enter_context(places.place(self.cancel))
        assert place is not None
        return place

    def waiting(self, places: Places) -> "Waiting":
        return Waiting(places, self.cancel)


class Waiting:
    """A thread that waits for a place."""

    def __init__(self, places: Places, cancel: int) -> None:
        self.got: list[Place | None] = []
        self._leave = threading.Event()

        def wait() -> None:
            with places.place(cancel) as place:
                self.got.append(place)
                self._leave.wait(30)

        self._thread = threading.Thread(target=wait, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._leave.set()
        self._thread.join(30)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        made = World(tmp_path, stack)
        yield made
    os.close(made.cancel)


@pytest.fixture
def run() -> Iterator[Callable[[str], int]]:
    """`run(command)` starts it in a session of its own; answers its process id."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: str) -> int:
        started.append(subprocess.Popen(["sh", "-c", command], start_new_session=True))
        return started[-1].pid

    yield start
    for process in started:
        os.killpg(process.pid, 9)
        process.wait()


def test_builds_share_the_slots(world: World) -> None:
    one, other = world.build(2), world.build(2)
    first, _ = world.take(one), world.take(other)
    third = world.waiting(other)
    assert not third.got
    one.release(first)
    wait_until(lambda: third.got)
    assert isinstance(third.got[0], Place)
    third.end()


def test_a_place_is_given_back_once(world: World) -> None:
    places = world.build(1)
    place = world.take(places)
    places.release(place)
    places.release(place)
    again = world.take(places)
    places.release(place)
    assert again.slot == 0
    assert module.OpenSlots(shared_path(world.environ), 1).count_taken() == 1
    places.release_all()
    assert module.OpenSlots(shared_path(world.environ), 1).count_taken() == 0


def test_who_waits_can_be_cancelled(world: World) -> None:
    places = world.build(1)
    world.take(places)
    waiting = world.waiting(places)
    os.eventfd_write(world.cancel, 1)
    wait_until(lambda: waiting.got)
    assert waiting.got == [None]
    waiting.end()


@pytest.mark.parametrize("command", ["sleep 60", "while :; do sleep 0.1; done", "sleep 60 & sleep 60 | cat"])
def test_a_command_that_only_waits_lends_its_slot(world: World, run: Callable[[str], int], command: str) -> None:
    places = world.build(1)
    lent: list[int] = []
    places.lent = lambda: lent.append(1)
    place, pid = world.take(places), run(command)

    def beat() -> bool:
        place.beat(pid)
        return bool(lent)

    wait_until(beat)
    other = world.build(1)
    assert world.take(other).slot == 0
    places.release(place)


def test_a_command_at_work_keeps_its_slot_and_takes_one_again(world: World, run: Callable[[str], int]) -> None:
    places = world.build(1)
    place, pid = world.take(places), run(f"{SPIN} & wait")
    wait_until(lambda: module.is_at_work(pid))
    for _ in range(20):
        place.beat(pid)
        assert place.slot == 0
    places.lend(place)
    place.beat(pid)
    assert place.slot == 0


def test_a_build_that_gets_no_slot_for_long_goes_on_with_one_command(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    world.take(world.build(1))
    places = world.build(1)
    place = world.take(places)
    assert place.slot < 0
    second = world.waiting(places)
    assert not second.got, "one at a time"
    places.release(place)
    wait_until(lambda: second.got)
    second.end()
    assert len(world.warnings) == 1 and "all 1 slots" in world.warnings[0]


def test_the_first_command_of_a_build_within_an_action_needs_no_slot(world: World) -> None:
    world.take(world.build(1))
    nested = world.build(1, **{os.fsdecode(NESTED): "1"})
    first = world.take(nested)
    second = world.waiting(nested)
    assert not second.got
    nested.release(first)
    wait_until(lambda: second.got)
    second.end()


def test_without_a_token_no_slot_is_kept(world: World, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokens")
    tokens = os.open(tmp_path / "tokens", os.O_RDWR)
    places = world.build(3, MAKEFLAGS=f" -j2 --jobserver-auth=fifo:{tmp_path / 'tokens'}")
    first = world.take(places)  # the one that needs none of make's
    waiting = world.waiting(places)
    others = world.build(3)
    assert world.take(others).slot >= 0 and world.take(others).slot >= 0, "who waits for a token has no slot"
    assert not waiting.got
    others.release_all()
    os.write(tokens, b"x")
    wait_until(lambda: waiting.got)
    places.release_all()
    assert os.read(tokens, 2) == b"x", "given back though its thread has not ended"
    waiting.end()
    assert first.token is not None
    os.close(tokens)
    assert world.warnings == []


def test_where_the_slots_are(tmp_path: Path) -> None:
    runtime, cache = tmp_path / "run", tmp_path / "cache"
    runtime.mkdir(0o700)
    environ = {"XDG_RUNTIME_DIR": str(runtime), "XDG_CACHE_HOME": str(cache)}
    assert shared_path(environ) == str(runtime / "rakefarm" / "slots")
    runtime.chmod(0o755)
    assert shared_path(environ) == str(cache / "rakefarm" / "slots")
    assert shared_path({"XDG_RUNTIME_DIR": "gone", "HOME": str(tmp_path)}) == str(tmp_path / ".cache/rakefarm/slots")


def test_slots_that_can_not_be_shared_are_a_warning(world: World) -> None:
    path = Path(shared_path(world.environ))
    path.unlink()
    path.write_text("not a fifo")
    places = world.build(1)
    place = world.take(places)
    assert place.slot == 0 and str(path) in world.warnings[0]
    waiting = world.waiting(places)
    assert not waiting.got, "within the build they hold all the same"
    places.release(place)
    wait_until(lambda: waiting.got)
    waiting.end()


def test_a_job_server_that_can_not_be_used_is_a_warning(world: World) -> None:
    places = world.build(1, MAKEFLAGS=" -j2 --jobserver-auth=97,98")
    assert world.take(places).token is None
    assert len(world.warnings) == 1 and "put a +" in world.warnings[0]
