"""A real server that is full: who waits is served in turn, what is leased is held, and nobody has another's licence."""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from server_vocabulary import (
    A_WAIT,
    DEADLINE_S,
    Client,
    Connect,
    Gate,
    Server,
    StartServer,
    a_task,
    an_input,
    execute,
    wait_until,
)

from rakefarm.market.curve import Curve
from rakefarm.server.action import BEAT_S
from rakefarm.server.turn import PATIENCE_S
from rakefarm.wire.messages import Decline, Need, Offer, Progress, Quote, Wait

LEASE_S = 2.0
"""Long enough that a test which uses a lease is never late."""
ACME = (Need("license", "acme"),)

Occupy = Callable[..., tuple[Client, Gate]]


@pytest.fixture
def start(start_server: StartServer, tmp_path: Path) -> Callable[..., Server]:
    """`start(slots, lease_s=…, workers=…)`: a server with one licence of acme."""

    def start(slots: int = 1, lease_s: float = LEASE_S, workers: int = 4) -> Server:
        config = tmp_path / "server.toml"
        config.write_text(f"lease_s = {lease_s}\nlicenses = ['acme']\n", encoding="utf-8")
        return start_server("--slots", str(slots), "--workers", str(workers), "--config", str(config))

    return start


@pytest.fixture
def occupy(connect: Connect, tmp_path: Path) -> Iterator[Occupy]:
    """`occupy(server)`: a client whose command holds a slot until its gate is opened."""
    numbers = itertools.count()
    gates = []

    def occupy(server: Server, **changes: object) -> tuple[Client, Gate]:
        gate = Gate(tmp_path, f"holder-{next(numbers)}")
        gates.append(gate)
        client = connect(server)
        client.send(execute(gate.command, **changes))
        gate.wait_reached()
        return client, gate

    yield occupy
    for gate in gates:
        gate.open()


def offer_of(answer: Quote | Decline) -> Offer:
    assert isinstance(answer, Quote), answer
    return answer.offer


def curve_now(client: Client) -> Curve:
    return offer_of(client.ask()).curve


def is_silent(client: Client, seconds: float) -> bool:
    """Whether nothing but beats comes for a while."""
    client.socket.settimeout(max(seconds, 0.01))  # 0 would mean: don't block, and raise another error
    try:
        with contextlib.suppress(TimeoutError):
            while True:
                if not isinstance(client.read(), Progress):
                    return False
        return True
    finally:
        client.socket.settimeout(None)


# --- waiting --------------------------------------------------------------------------------------------


def test_a_free_slot_is_leased_at_once(start: Callable[..., Server], connect: Connect) -> None:
    client = connect(start())
    offer = offer_of(client.wait_for_slot())
    assert offer.lease > 0 and offer.valid_s == LEASE_S
    assert offer.price > 0 and offer.price == pytest.approx(sum(term.value for term in offer.terms))
    assert client.run(b"exit 3", lease=offer.lease).result.status == 3  # type: ignore[union-attr]


def test_a_quote_holds_nothing(start: Callable[..., Server], connect: Connect) -> None:
    server = start()
    client, other = connect(server), connect(server)
    offer = offer_of(client.ask())
    assert offer.lease == 0 and offer.curve.free_slots == 1
    assert curve_now(other).free_slots == 1
    assert other.run(b"exit 3", start=1).result.status == 3  # type: ignore[union-attr]


@pytest.mark.parametrize(("held_s", "clients"), [(0.0, 8), (0.15, 8), (PATIENCE_S + 0.15, 4)])
def test_clients_that_wait_are_served_in_turn(
    start: Callable[..., Server], connect: Connect, occupy: Occupy, held_s: float, clients: int
) -> None:
    """Over all workers: four of them have these connections. However long each holds what it got."""
    server = start()
    _, gate = occupy(server)
    served: list[int] = []

    def use_turn(number: int, client: Client) -> None:
        lease = offer_of(client.finish_waiting()).lease
        served.append(number)
        time.sleep(held_s)
        assert client.run(b"exit 3", lease=lease).result.status == 3  # type: ignore[union-attr]

    threads = []
    for number in range(clients):
        client = connect(server)
        client.send(A_WAIT)
        wait_until(lambda number=number: curve_now(connect(server)).waiting == number + 1)
        threads.append(threading.Thread(target=use_turn, args=(number, client)))
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert served == list(range(clients))


def test_a_waiting_client_hears_that_the_server_lives(
    start: Callable[..., Server], connect: Connect, occupy: Occupy
) -> None:
    server = start()
    occupy(server)
    client = connect(server)
    client.send(A_WAIT)
    before = time.monotonic()
    for beat in (1, 2):
        message = client.read()
        assert isinstance(message, Progress) and message.phase == "waiting"
        assert message.elapsed_s == pytest.approx(beat * BEAT_S, abs=1.0)
    assert time.monotonic() - before < 2 * BEAT_S + 2.0


def test_what_is_refused_does_not_wait(start: Callable[..., Server], connect: Connect, occupy: Occupy) -> None:
    server = start()
    occupy(server)
    client = connect(server)
    answer = client.wait_for_slot(Wait(a_task(needs=(Need("tool", "no-such-tool"),))))
    assert isinstance(answer, Decline) and answer.reason == "tool"


@pytest.mark.parametrize("how", ["closes", "speaks"])
def test_who_leaves_the_queue_holds_up_nobody(
    start: Callable[..., Server], connect: Connect, occupy: Occupy, how: str
) -> None:
    server = start()
    _, gate = occupy(server)
    leaving, staying = connect(server), connect(server)
    leaving.send(A_WAIT)
    wait_until(lambda: curve_now(connect(server)).waiting == 1)
    staying.send(A_WAIT)
    wait_until(lambda: curve_now(connect(server)).waiting == 2)
    if how == "closes":
        leaving.close()
    else:
        leaving.send(A_WAIT)
        assert leaving.wait_closed() is None
    wait_until(lambda: curve_now(connect(server)).waiting == 1)
    gate.open()
    assert offer_of(staying.finish_waiting()).lease


def test_the_turn_of_a_killed_worker_is_over(start: Callable[..., Server], connect: Connect, occupy: Occupy) -> None:
    server = start(workers=2)
    holder, gate = occupy(server)
    spared = worker_of(server, holder)
    doomed = wait_until(lambda: connect_elsewhere(server, connect, spared))
    doomed.send(A_WAIT)
    wait_until(lambda: curve_now(connect(server)).waiting == 1)
    os.kill(worker_of(server, doomed), signal.SIGKILL)
    server.wait_for_log("died: killed by signal 9")
    client = wait_until(lambda: connect(server))
    wait_until(lambda: curve_now(client).waiting == 0)
    client.send(A_WAIT)
    gate.open()
    assert offer_of(client.finish_waiting()).lease


def worker_of(server: Server, client: Client) -> int:
    """The worker that has the client's connection."""
    port = client.socket.getsockname()[1]
    for pid in server.worker_pids():
        if any(each.raddr and each.raddr.port == port for each in psutil.Process(pid).net_connections("tcp")):
            return pid
    raise AssertionError("no worker has the connection")


def connect_elsewhere(server: Server, connect: Connect, worker: int) -> Client | None:
    client = connect(server)
    return client if worker_of(server, client) != worker else None


def test_a_worker_that_stands_still_does_not_hold_up_the_others(
    start: Callable[..., Server], connect: Connect, occupy: Occupy
) -> None:
    server = start(workers=2)
    holder, gate = occupy(server)
    still = wait_until(lambda: connect_elsewhere(server, connect, worker_of(server, holder)))
    client = wait_until(lambda: connect_elsewhere(server, connect, worker_of(server, still)))
    still.send(A_WAIT)
    wait_until(lambda: curve_now(client).waiting == 1)
    stopped = worker_of(server, still)
    os.kill(stopped, signal.SIGSTOP)
    try:
        client.send(A_WAIT)
        gate.open()
        offer = offer_of(client.finish_waiting())
        assert client.run(b"exit 3", lease=offer.lease).result.status == 3  # type: ignore[union-attr]
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert offer_of(still.finish_waiting()).lease


# --- leases ---------------------------------------------------------------------------------------------


def test_a_leased_slot_is_nobody_elses(start: Callable[..., Server], connect: Connect) -> None:
    server = start()
    client, other = connect(server), connect(server)
    lease = offer_of(client.wait_for_slot()).lease
    curve = curve_now(other)
    assert (curve.free_slots, curve.running) == (0, 1)
    declined = other.run(b"true", start=1).declined
    assert declined is not None and declined.reason == "full"
    assert client.run(b"exit 3", lease=lease, start=1).result.status == 3  # type: ignore[union-attr]
    assert other.run(b"exit 4", start=1).result.status == 4  # type: ignore[union-attr]


def test_a_lease_that_is_not_used_is_the_next_ones(start: Callable[..., Server], connect: Connect) -> None:
    server = start(lease_s=0.3)
    client, other = connect(server), connect(server)
    lease = offer_of(client.wait_for_slot()).lease
    other.send(A_WAIT)
    assert is_silent(other, 0.1)
    offer = offer_of(other.finish_waiting())
    declined = client.run(b"true", lease=lease, start=1).declined
    assert declined is not None and declined.reason == "full", "it has expired, and that is no error"
    assert other.run(b"exit 3", lease=offer.lease).result.status == 3  # type: ignore[union-attr]
    assert client.run(b"exit 4", lease=lease).result.status == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["asks", "waits", "executes without it", "leaves"])
def test_a_lease_is_given_up_by(start: Callable[..., Server], connect: Connect, how: str) -> None:
    server = start(lease_s=60.0)
    client, other = connect(server), connect(server)
    lease = offer_of(client.wait_for_slot()).lease
    match how:
        case "asks":
            client.ask()
        case "waits":
            following = offer_of(client.wait_for_slot()).lease
            assert following not in (0, lease)
            client.ask()
        case "executes without it":
            assert client.run(b"exit 3", lease=lease + 1).result.status == 3  # type: ignore[union-attr]
        case "leaves":
            client.close()
    assert offer_of(other.wait_for_slot()).lease
    if how == "asks":
        declined = client.run(b"true", lease=lease, start=1).declined
        assert declined is not None and declined.reason == "full"


def test_a_lease_holds_for_what_it_was_given_for_and_anything_else_is_judged_again(
    start: Callable[..., Server], connect: Connect
) -> None:
    server = start()
    client = connect(server)
    lease = offer_of(client.wait_for_slot()).lease
    declined = client.run(b"true", lease=lease, needs=(Need("tool", "no-such-tool"),)).declined
    assert declined is not None and declined.reason == "tool"
    lease = offer_of(client.wait_for_slot()).lease
    assert client.run(b"exit 3", lease=lease, needs=(Need("tool", "sh"),)).result.status == 3  # type: ignore[union-attr]
    assert client.run(b"exit 4", start=1).result.status == 4, "the slot is free again"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "reason"), [({"memory_bytes": 1 << 55}, "memory"), ({"input_bytes": 1 << 55}, "disk")]
)
def test_a_lease_is_no_promise_of_more_than_was_judged(
    start: Callable[..., Server], connect: Connect, more: dict[str, int], reason: str
) -> None:
    client = connect(start())
    lease = offer_of(client.wait_for_slot()).lease
    declined = client.run(b"true", lease=lease, kind="compile", **more).declined
    assert declined is not None and declined.reason == reason
    lease = offer_of(client.wait_for_slot()).lease
    assert client.run(b"exit 3", lease=lease, memory_bytes=1).result.status == 3  # type: ignore[union-attr]
    assert client.run(b"exit 4", start=1).result.status == 4, "the slot is free again"  # type: ignore[union-attr]


def test_a_leased_command_whose_inputs_are_missing_keeps_its_slot(
    start: Callable[..., Server], connect: Connect
) -> None:
    server = start()
    client, other = connect(server), connect(server)
    lease = offer_of(client.wait_for_slot()).lease
    content = os.urandom(100)
    client.send(execute(b"cat in", an_input(b"in", content), lease=lease))
    other.send(A_WAIT)
    assert is_silent(other, 0.3)
    assert client.finish([content]).stdout == content
    assert offer_of(other.finish_waiting()).lease


# --- starting now, and curves ---------------------------------------------------------------------------


def test_what_must_start_now_is_declined_with_a_curve(
    start: Callable[..., Server], connect: Connect, occupy: Occupy
) -> None:
    server = start()
    _, gate = occupy(server)
    client = connect(server)
    declined = client.run(b"true", start=1).declined
    assert declined is not None and declined.reason == "full"
    (curve,) = declined.curves
    assert (curve.slots, curve.running, curve.waiting, curve.free_slots) == (1, 1, 0, 0)
    gate.open()
    wait_until(lambda: curve_now(client).free_slots)
    assert client.run(b"exit 3", start=1).result.status == 3  # type: ignore[union-attr]


def test_what_must_start_now_does_not_pass_who_waits(
    start: Callable[..., Server], connect: Connect, occupy: Occupy
) -> None:
    server = start(workers=2)
    holder, gate = occupy(server)
    still = wait_until(lambda: connect_elsewhere(server, connect, worker_of(server, holder)))
    still.send(A_WAIT)
    client = wait_until(lambda: connect_elsewhere(server, connect, worker_of(server, still)))
    wait_until(lambda: curve_now(client).waiting == 1)
    stopped = worker_of(server, still)
    os.kill(stopped, signal.SIGSTOP)  # so that the slot stays free
    try:
        gate.open()
        assert holder.finish().result is not None
        declined = client.run(b"true", start=1).declined
        assert declined is not None and declined.reason == "full"
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_a_curve_is_fresh_after_each_beginning_and_end(
    start: Callable[..., Server], connect: Connect, occupy: Occupy
) -> None:
    server = start(slots=2)
    client = connect(server)
    before = curve_now(client)
    assert (before.slots, before.running, before.free_in_s) == (2, 0, (0.0, 0.0))
    (first, first_gate), (second, second_gate) = occupy(server), occupy(server)
    full = curve_now(client)
    assert (full.running, full.free_slots, len(full.free_in_s)) == (2, 0, 2)
    assert all(0 < time < 60 for time in full.free_in_s) and list(full.free_in_s) == sorted(full.free_in_s)
    first_gate.open()
    delivered = first.finish().delivered
    assert delivered is not None
    (after,) = delivered.curves
    assert (after.running, after.free_slots) == (1, 1), "its own slot is free again"
    assert before.version < full.version < after.version
    second_gate.open()
    assert second.finish().delivered.curves[0].running == 0  # type: ignore[union-attr]


def test_a_result_tells_the_work_that_was_done(start: Callable[..., Server], connect: Connect) -> None:
    result = connect(start()).run(b"sleep 0.3").result
    assert result is not None
    assert result.work_s > 0 and result.elapsed_s >= 0.3


# --- licences -------------------------------------------------------------------------------------------


def test_two_commands_never_have_one_licence(start: Callable[..., Server], connect: Connect, occupy: Occupy) -> None:
    server = start(slots=3)
    holder, gate = occupy(server, needs=ACME)
    client = connect(server)
    assert isinstance(client.ask(), Quote), "a price can be had"
    declined = client.run(b"true", start=1, needs=ACME).declined
    assert declined is not None and declined.reason == "license_in_use"
    assert declined.curves[0].free_slots == 2
    client.send(execute(b"exit 3", needs=ACME))
    client.wait_phase("queued")
    gate.open()
    assert holder.finish().result is not None
    assert client.finish().result.status == 3  # type: ignore[union-attr]


def test_a_lease_holds_its_licence(start: Callable[..., Server], connect: Connect) -> None:
    server = start(slots=3)
    client, other = connect(server), connect(server)
    lease = offer_of(client.wait_for_slot(Wait(a_task(needs=ACME)))).lease
    declined = other.run(b"true", start=1, needs=ACME).declined
    assert declined is not None and declined.reason == "license_in_use"
    assert client.run(b"exit 3", lease=lease, needs=ACME).result.status == 3  # type: ignore[union-attr]
    assert other.run(b"exit 4", start=1, needs=ACME).result.status == 4  # type: ignore[union-attr]


def test_a_lease_without_the_licence_does_not_run_with_it(
    start: Callable[..., Server], connect: Connect, occupy: Occupy
) -> None:
    server = start(slots=3)
    _, gate = occupy(server, needs=ACME)
    client = connect(server)
    lease = offer_of(client.wait_for_slot()).lease
    declined = client.run(b"true", lease=lease, start=1, needs=ACME).declined
    assert declined is not None and declined.reason == "license_in_use"
    assert curve_now(client).free_slots == 2, "and its slot is free again"
    gate.open()


def test_who_waits_for_a_licence_lets_others_pass(
    start: Callable[..., Server], connect: Connect, occupy: Occupy
) -> None:
    server = start(slots=2)
    holder, gate = occupy(server, needs=ACME)
    waiting, other = connect(server), connect(server)
    waiting.send(Wait(a_task(needs=ACME)))
    worker = psutil.Process(worker_of(server, waiting))
    assert is_silent(waiting, 0.2)
    used = worker.cpu_times()
    began = time.monotonic()
    for _ in range(3):
        assert other.run(b"exit 3", start=1).result.status == 3  # type: ignore[union-attr]
        lease = offer_of(other.wait_for_slot()).lease
        assert other.run(b"exit 3", lease=lease).result.status == 3  # type: ignore[union-attr]
    assert curve_now(other).waiting == 0 and curve_now(other).free_slots == 1
    assert is_silent(waiting, max(0.0, began + 1.0 - time.monotonic()))
    if worker_of(server, other) != worker.pid:
        now = worker.cpu_times()
        assert now.user + now.system - used.user - used.system < 0.3, "it sleeps meanwhile"
    gate.open()
    assert holder.finish().result is not None
    assert offer_of(waiting.finish_waiting()).lease


def test_who_waits_for_a_licence_is_next_once_it_is_free(
    start: Callable[..., Server], connect: Connect, occupy: Occupy
) -> None:
    server = start(slots=2)
    holder, gate = occupy(server, needs=ACME)
    waiting, later = connect(server), connect(server)
    waiting.send(Wait(a_task(needs=ACME)))
    assert is_silent(waiting, 0.2)
    _, other_gate = occupy(server)
    later.send(A_WAIT)
    wait_until(lambda: curve_now(connect(server)).waiting == 1)
    gate.open()
    assert holder.finish().result is not None
    # The slot that comes free with the licence may be either's; both have one in the end.
    other_gate.open()
    assert offer_of(waiting.finish_waiting()).lease
    assert offer_of(later.finish_waiting()).lease
