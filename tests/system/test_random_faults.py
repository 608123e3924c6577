"""Faults at random moments of a build, on a farm as it is meant to be: with key, TLS, and the highest isolation.

In the end the build is right or has failed clearly, and no process, slot, box, descriptor or temporary file is left. How
often each is made says RAKEFARM_FAULT_ROUNDS; `RAKEFARM_FAULT_ROUNDS=50 pytest -m slow tests/system/test_random_faults.py`
is what docs/security-checks.md tells of.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from farm_vocabulary import small_disks_work, with_small_disk
from fault_vocabulary import (
    ACTIONS,
    Cable,
    Clock,
    Farm,
    a_farm,
    executors_of,
    full_disk,
    kill,
    networks_work,
    some_moment,
    standing_still,
)
from server_vocabulary import wait_until

ROUNDS = int(os.environ.get("RAKEFARM_FAULT_ROUNDS", "2"))
HOUR_S = 3600
UNACKNOWLEDGED_S = 3
"""In these tests a host that acknowledges nothing is given up sooner, so that they end sooner."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at commands that have users of their own"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each of them so often, each time with another seed."""
    metafunc.parametrize("seed", range(ROUNDS))


@pytest.fixture
def chance(request: pytest.FixtureRequest, seed: int) -> random.Random:
    return random.Random(f"{request.function.__name__} {seed}")


Open = Callable[[Farm], object]


def _is_as_before(farm: Farm) -> bool:
    """Whether the last test has left the farm so that the next may go on with it; if not, that one has said so."""
    try:
        farm.check_nothing_is_left()
    except AssertionError:
        return False
    return True


@pytest.fixture(scope="module")
def farms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Farm]]:
    """`farms(name, *openers)`: a farm with these servers, the same for all tests that name it; a server that is gone is
    replaced. In the end all are ended, and have left nothing."""
    made: dict[str, Farm] = {}
    with contextlib.ExitStack() as stack:

        def get(name: str, *openers: Open, prefix: Sequence[str] = ()) -> Farm:
            farm = made.get(name)
            if farm is None or not _is_as_before(farm):
                farm = made[name] = stack.enter_context(a_farm(tmp_path_factory.mktemp("farm")))
                farm.write_build()
            for server in [server for server in farm.servers if server.process.poll() is not None]:
                farm.bury(server)
            if len(farm.servers) < len(openers):
                for server in list(farm.servers):
                    farm.bury(server)
                for opener in openers:
                    opener(farm)
                for server in farm.servers:
                    farm.check_serves(server, prefix)
            farm.check_nothing_is_left()
            farm.note()
            return farm

        yield get


@pytest.fixture
def farm(farms: Callable[..., Farm]) -> Farm:
    """Two servers, warm."""
    return farms("two servers", Farm.open, Farm.open)


def check(farm: Farm) -> None:
    """What must hold after any fault."""
    farm.check_nothing_is_left()
    alive = [server for server in farm.servers if server.process.poll() is None]
    farm.check_serves(alive[0])
    farm.check_nothing_is_left()


# --- kill -9 --------------------------------------------------------------------------------------------


def test_a_listener_is_killed(farm: Farm, chance: random.Random) -> None:
    client = farm.start()
    some_moment(chance)
    farm.servers[0].process.kill()
    built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    check(farm)


def test_a_worker_is_killed(farm: Farm, chance: random.Random) -> None:
    client = farm.start()
    some_moment(chance)
    kill(chance.choice(farm.servers[0].worker_pids()))
    built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    wait_until(lambda: len(farm.servers[0].worker_pids()) == 4, "another worker")
    check(farm)


def test_an_executor_is_killed(farm: Farm, chance: random.Random) -> None:
    client = farm.start()
    some_moment(chance)
    for pid in executors_of(farm.servers[0])[:: chance.choice((1, 2))]:
        kill(pid)
    built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    check(farm)


def test_a_nursery_is_killed(farm: Farm, chance: random.Random) -> None:
    client = farm.start()
    some_moment(chance)
    worker = psutil.Process(chance.choice(farm.servers[0].worker_pids()))
    for nursery in worker.children():
        kill(nursery.pid)
    built = client.end()
    farm.check_ended(built)
    check(farm)


def test_a_command_is_killed(farm: Farm, chance: random.Random) -> None:
    client = farm.start()
    some_moment(chance)
    killed = farm.commands()[:1]
    for pid in killed:
        kill(pid)
    built = client.end()
    farm.check_ended(built)
    assert not built.status or (built.status == 1 and killed)
    check(farm)


def test_a_client_is_killed(farm: Farm, chance: random.Random) -> None:
    client = farm.start()
    some_moment(chance)
    client.process.kill()
    client.process.communicate()
    farm.check_outputs(all_of_them=False)
    check(farm)


# --- SIGSTOP --------------------------------------------------------------------------------------------


def test_a_server_stands_still(farm: Farm, chance: random.Random) -> None:
    client = farm.start()
    some_moment(chance)
    with standing_still([process.pid for process in farm.servers[0].tree()]):
        built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    check(farm)


def test_a_client_stands_still(farm: Farm, chance: random.Random) -> None:
    client = farm.start()
    some_moment(chance)
    with standing_still([client.process.pid]):
        time.sleep(chance.uniform(0.5, 9.0))
    built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    check(farm)


# --- the cable ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    if not networks_work():
        pytest.skip("this machine lets nobody make networks")
    made = Cable()
    yield made
    made.close()


@pytest.fixture
def far_farm(farms: Callable[..., Farm], cable: Cable) -> Farm:
    """Two servers, of which the first stands behind the cable."""
    settings = f"unacknowledged_s = {UNACKNOWLEDGED_S}\n"
    return farms(
        "behind a cable",
        lambda farm: farm.open("--address", cable.address, prefix=cable.there, settings=settings),
        lambda farm: farm.open("--address", "127.0.0.1", prefix=cable.here, settings=settings),
        prefix=cable.here,
    )


@pytest.mark.parametrize("mended", [True, False], ids=["for a while", "for good"])
def test_a_cable_is_cut(far_farm: Farm, cable: Cable, chance: random.Random, mended: bool) -> None:
    farm = far_farm
    client = farm.start(prefix=cable.here)
    some_moment(chance)
    cable.cut()
    if mended:
        time.sleep(chance.uniform(0.1, 5.0))
        cable.mend()
    built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    farm.check_nothing_is_left()
    if not mended:
        cable.mend()
    farm.check_serves(farm.servers[0], cable.here)
    farm.check_nothing_is_left()


def test_a_client_is_gone_behind_a_cable_that_is_cut(far_farm: Farm, cable: Cable, chance: random.Random) -> None:
    farm = far_farm
    client = farm.start(prefix=cable.here)
    some_moment(chance)
    cable.cut()
    client.process.kill()
    client.process.communicate()
    farm.check_outputs(all_of_them=False)
    farm.check_nothing_is_left()
    cable.mend()
    farm.check_serves(farm.servers[0], cable.here)


# --- disks ----------------------------------------------------------------------------------------------

needs_disks = pytest.mark.skipif(not small_disks_work(), reason="this machine lets nobody mount a disk")


@needs_disks
@pytest.mark.parametrize("isolation", ["auto", "process"])
def test_a_servers_disk_is_full(
    farms: Callable[..., Farm], chance: random.Random, tmp_path_factory: pytest.TempPathFactory, isolation: str
) -> None:
    place = tmp_path_factory.getbasetemp() / f"disk-{isolation}"
    place.mkdir(exist_ok=True)
    script = f"mkdir '{place}/tmp' && chmod 777 '{place}/tmp' && exec \"$@\""
    prefix = [*with_small_disk(place, "160m"), "sh", "-c", script, "sh"]
    own = {"TMPDIR": str(place / "tmp"), "XDG_CACHE_HOME": str(place / "cache")}
    farm = farms(
        f"small disk, {isolation}",
        lambda farm: farm.open("--isolation", isolation, prefix=prefix, env=own),
        Farm.open,
    )
    client = farm.start()
    some_moment(chance)
    with full_disk(farm.servers[0].process.pid, place):
        built = client.end()
    farm.check_ended(built)
    assert not built.status or built.says("No space left on device"), built.stderr
    check(farm)


@needs_disks
def test_a_clients_disk_is_full(farm: Farm, chance: random.Random, tmp_path: Path) -> None:
    project = farm.project
    kept = tmp_path / "kept"
    shutil.copytree(project.path, kept)
    # The shell goes to the new disk first: it was started where the old one is.
    script = f"cd '{project.path}' && cp '{kept}'/* . && exec \"$@\""
    inside = [*with_small_disk(project.path, "8m"), "sh", "-c", script, "sh"]
    client = farm.start("--keep-going", prefix=inside)
    some_moment(chance)
    seen = Path(f"/proc/{client.process.pid}/cwd")
    with contextlib.suppress(OSError), (seen / "filler").open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
    sizes = {}
    while client.process.poll() is None:
        with contextlib.suppress(OSError):
            sizes.update({path.name: path.stat().st_size for path in seen.glob("out*")})
        time.sleep(0.02)
    built = client.end()
    if built.status:
        assert built.status == 1 and built.says("No space left on device"), built.stderr
    whole = {f"out{number}": 2 * len(project.read(f"in{number}")) for number in range(0, ACTIONS, 2)}
    assert all(size == whole.get(name, size) for name, size in sizes.items()), "whole, or not there"
    check(farm)


# --- clocks and stores ----------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["the client's", "a server's"])
def test_a_clock_is_moved(
    farms: Callable[..., Farm], chance: random.Random, tmp_path_factory: pytest.TempPathFactory, whose: str
) -> None:
    place = tmp_path_factory.getbasetemp() / f"clock of {whose}"
    place.mkdir(exist_ok=True)
    clock = Clock(place)
    moved = clock.variables if whose == "a server's" else {}
    farm = farms(f"a clock of {whose}", lambda farm: farm.open(env=moved), Farm.open)
    client = farm.start(env={} if moved else clock.variables)
    some_moment(chance)
    clock.move(clock.moved_s + chance.choice((HOUR_S, -HOUR_S)))
    built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    check(farm)


def test_a_file_of_the_store_is_damaged(farm: Farm, chance: random.Random) -> None:
    server = farm.servers[0]
    blobs = [path for path in (server.scratch.parent / "cache").rglob("??/*") if len(path.name) == 64]
    assert len(blobs) >= 8
    client = farm.start()
    some_moment(chance)
    for path in chance.sample(blobs, 4):
        if path.exists():
            damage(path, chance)
    built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    for path in blobs:
        if path.exists():
            damage(path, chance)
    check(farm)


def damage(path: Path, chance: random.Random) -> None:
    """As a bad disk or a crash does: other bytes, fewer of them, or none at all."""
    path.chmod(0o600)
    size = path.stat().st_size
    match chance.randrange(3):
        case 0:
            with path.open("r+b") as file:
                file.seek(chance.randrange(size))
                file.write(b"\xff\x00\xa5")
        case 1:
            os.truncate(path, size // 2)
        case 2:
            path.unlink()


# --- and the gentle ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_server_is_told_to_end(farm: Farm, chance: random.Random, number: signal.Signals) -> None:
    client = farm.start()
    some_moment(chance)
    farm.servers[0].process.send_signal(number)
    built = client.end()
    assert built.status == 0, built.stderr
    farm.check_outputs()
    farm.servers[0].wait()
    check(farm)
