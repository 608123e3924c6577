"""Attacks from the network. Each is first seen to succeed where nothing keeps it out, else it would prove nothing, and
then to fail where something does."""

import contextlib
import random
import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from secure_vocabulary import SecureClient, is_refused, open_keyed_server
from server_vocabulary import (
    A_QUOTE,
    A_WAIT,
    Client,
    Gate,
    Server,
    encode,
    execute,
    hello,
    open_server,
    open_to_commands,
    wait_until,
)

from rakefarm.security.keys import Key, read_keys
from rakefarm.wire import Limits
from rakefarm.wire.codec import U64
from rakefarm.wire.messages import Error, MessageType, Proof, Quote, Welcome

OTHER_ADDRESS = "127.0.0.2"
"""Where attackers come from, when their address is to differ from the honest client's."""
GROWTH_BYTES = 20 << 20
HONEST_S = 0.1

abuse = pytest.mark.abuse


@pytest.fixture(scope="module")
def open_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for nothing."""
    server = open_server(tmp_path_factory.mktemp("open"), "--slots", "2")
    yield server
    server.end()
    assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keyed")


@pytest.fixture(scope="module")
def keyed(place: Path) -> Iterator[Server]:
    """A server that asks for a key, and is as it comes but for its penalties, which have tests of their own."""
    (place / "server.toml").write_text("penalty_s = 0\n")
    server, _ = open_keyed_server(place, "--slots", "2", "--config", str(place / "server.toml"))
    yield server
    server.end()
    assert "Traceback" not in server.log()


@pytest.fixture
def key(keyed: Server, place: Path) -> Key:
    return read_keys(str(place / "keys"))["zoe"]


def serve_honest(server: Server, key: Key | None) -> float:
    """An honest client's first quote, all proofs included; how long it took (seconds)."""
    began = time.monotonic()
    with SecureClient(server.host, server.port) if key else Client(server.host, server.port) as client:
        if key is not None:
            assert isinstance(client, SecureClient)
            client.prove(key)
        else:
            client.introduce()
        assert isinstance(client.ask(), Quote)
    return time.monotonic() - began


def typical_honest(server: Server, key: Key, rounds: int = 21) -> float:
    return statistics.median(serve_honest(server, key) for _ in range(rounds))


def is_open(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


# --- strangers ------------------------------------------------------------------------------------------


def test_a_stranger_runs_commands_where_there_is_no_key_and_nowhere_else(
    open_one: Server, keyed: Server, tmp_path: Path
) -> None:
    open_to_commands(tmp_path)
    victim = tmp_path / "victim"
    command = f"echo owned > '{victim}'".encode()
    with Client(open_one.host, open_one.port) as stranger:
        stranger.introduce()
        assert stranger.run(command).result is not None
    assert victim.read_text() == "owned\n"
    victim.unlink()
    attempts = [encode(execute(command)), encode(hello()) + encode(execute(command))]
    attempts.append(encode(hello()) + encode(Proof("zoe", bytes(32))) + encode(execute(command)))
    for data in attempts:
        for kind in (Client, SecureClient):
            with kind(keyed.host, keyed.port) as stranger:
                stranger.send_bytes(data)
                with contextlib.suppress(OSError):
                    assert stranger.wait_closed() is not None
    assert not victim.exists() and keyed.sandboxes() == []


@contextlib.contextmanager
def standing_between(server: Server, change: Callable[[bytes], bytes]) -> Iterator[tuple[str, int, bytearray]]:
    """Somebody on the way who sees everything, and changes what the client says; answers where."""
    seen = bytearray()

    def pump(source: socket.socket, goal: socket.socket, changed: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                seen.extend(data)
                goal.sendall(changed(data))
        for sock in (source, goal):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def carry() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection((server.host, server.port)) as true:
                back = threading.Thread(target=pump, args=(true, client, bytes), daemon=True)
                back.start()
                pump(client, true, change)
                back.join()

        thread = threading.Thread(target=carry, daemon=True)
        thread.start()
        yield "127.0.0.1", listener.getsockname()[1], seen
        thread.join()


def test_who_stands_between_reads_plain_text_and_no_other(open_one: Server, keyed: Server, key: Key) -> None:
    with standing_between(open_one, bytes) as (host, port, seen), Client(host, port) as client:
        client.introduce()
        client.run(b"cat secret", {b"secret": b"the source"})
    assert b"cat secret" in seen and b"the source" in seen
    with standing_between(keyed, bytes) as (host, port, seen), SecureClient(host, port) as client:
        assert client.prove(key).run(b"cat secret", {b"secret": b"the source"}).stdout == b"the source"
    assert b"cat secret" not in seen and b"the source" not in seen and b"zoe" not in seen


def test_who_stands_between_changes_plain_text_and_no_other(open_one: Server, keyed: Server, key: Key) -> None:
    def swap(data: bytes) -> bytes:
        return data.replace(b"echo good", b"echo evil")

    with standing_between(open_one, swap) as (host, port, _), Client(host, port) as client:
        client.introduce()
        assert client.run(b"echo good").stdout == b"evil\n"

    armed = threading.Event()

    def flip(data: bytes) -> bytes:
        return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:] if armed.is_set() else data

    with standing_between(keyed, flip) as (host, port, _), SecureClient(host, port) as client:
        client.prove(key)
        assert isinstance(client.ask(), Quote), "as long as he only carries it"
        armed.set()
        client.send(execute(b"echo good; exit 0 #" + b"x" * 4000))
        with contextlib.suppress(OSError):
            assert client.read() is None, "a changed record is never decrypted"
    wait_until(lambda: keyed.sandboxes() == [])


# --- rubbish before the proof ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, 1 << 32, Limits().greeting + 1])
@pytest.mark.parametrize("number", [MessageType.HELLO, MessageType.PROOF])
def test_sizes_are_refused_at_once_and_take_no_memory(keyed: Server, key: Key, size: int, number: MessageType) -> None:
    """The same sizes below the limit are waited for: that is the attack, as far as it goes."""
    before, times = keyed.memory_bytes(), []
    while len(times) < 7 or (min(times) >= 0.01 and len(times) < 100):  # what it takes, on a machine that is busy
        with SecureClient(keyed.host, keyed.port) as client:
            if number is MessageType.PROOF:
                client.greet()
            client.send_bytes(U64.pack(number))
            began = time.monotonic()
            client.send_bytes(U64.pack(size))
            error = client.read()
            times.append(time.monotonic() - began)
            assert isinstance(error, Error) and error.code == "limit"
    assert min(times) < 0.01
    assert keyed.memory_bytes() < before + GROWTH_BYTES
    with SecureClient(keyed.host, keyed.port) as client:
        client.send_bytes(U64.pack(MessageType.HELLO) + U64.pack(Limits().greeting))
        time.sleep(0.05)
        assert is_open(client.socket)


def test_introductions_that_are_cut_short(keyed: Server, key: Key) -> None:
    whole = encode(hello())
    for length in [*range(0, len(whole), 9), len(whole) - 1]:
        with SecureClient(keyed.host, keyed.port) as client:
            client.send_bytes(whole[:length])
            with contextlib.suppress(OSError):
                client.socket.unwrap() if length % 2 else client.socket.shutdown(socket.SHUT_WR)
    for length in (0, 1, 8, 20, 50):
        with SecureClient(keyed.host, keyed.port) as client:
            client.greet().send_bytes(encode(Proof("zoe", client.proof(key)))[:length])
    assert serve_honest(keyed, key)


def make_noise(server: Server, rounds: int, seed: int) -> None:
    generator = random.Random(seed)
    for number in range(rounds):
        data = generator.randbytes(64 << 10)
        if number % 3 == 1:
            data = b"\x16\x03\x01" + data
        with contextlib.suppress(OSError):
            if number % 3 == 2:
                with SecureClient(server.host, server.port) as client:
                    client.send_bytes(data)
                    error = client.wait_closed()
                    assert error is None or error.code in ("protocol", "limit")
            else:
                with Client(server.host, server.port) as stranger:
                    stranger.socket.settimeout(10.0)
                    stranger.send_bytes(data)
                    while stranger.socket.recv(4096):
                        pass


def check_noise(server: Server, key: Key, rounds: int) -> None:
    make_noise(server, 12, 1)  # whatever is made at first use is there now
    before, workers = server.memory_bytes(), server.worker_pids()
    make_noise(server, rounds, 2)
    assert serve_honest(server, key)
    assert server.worker_pids() == workers
    wait_until(lambda: server.memory_bytes() < before + GROWTH_BYTES, "memory given back")


def test_noise(keyed: Server, key: Key) -> None:
    check_noise(keyed, key, 30)


@abuse
def test_noise_a_thousand_times(keyed: Server, key: Key) -> None:
    check_noise(keyed, key, 1000)


@abuse
def test_every_introduction_with_a_byte_changed(keyed: Server, key: Key) -> None:
    """Refused, or understood as another introduction; admitted only with the right proof for what was understood."""
    whole = encode(hello(nonce=bytes(range(32))))
    generator = random.Random(5)
    for position in range(8, len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << generator.randrange(8)
        with SecureClient(keyed.host, keyed.port) as client:
            client.send_bytes(bytes(data))
            client.socket.settimeout(0.2)
            with contextlib.suppress(TimeoutError, AssertionError):
                answer = client.read()
                assert answer is None or not isinstance(answer, Welcome)
    assert serve_honest(keyed, key)


# --- floods ---------------------------------------------------------------------------------------------


def connect_many(server: Server, count: int, source: str = OTHER_ADDRESS) -> list[socket.socket]:
    return [socket.create_connection((server.host, server.port), 10.0, (source, 0)) for _ in range(count)]


def close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def test_a_hundred_idle_connections_hold_what_they_may_and_no_more(keyed: Server, key: Key, tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("unproven = 512\nunproven_per_address = 512\nproof_s = 60.0\n")
    endless, _ = open_keyed_server(tmp_path, "--config", str(tmp_path / "server.toml"))
    try:
        idle = connect_many(endless, 100)
        assert serve_honest(endless, read_keys(str(tmp_path / "keys"))["zoe"])
        assert sum(is_open(sock) for sock in idle) == 100, "without a limit all of them stay"
        close_all(idle)
    finally:
        endless.end()
    idle = connect_many(keyed, 100)
    assert serve_honest(keyed, key)
    wait_until(lambda: sum(is_open(sock) for sock in idle) <= 8, "only so many of one address stay")
    close_all(idle)
    idle = [sock for number in range(2, 27) for sock in connect_many(keyed, 4, f"127.0.0.{number}")]
    assert serve_honest(keyed, key)
    wait_until(lambda: sum(is_open(sock) for sock in idle) <= 64, "and only so many of all")
    close_all(idle)


def test_idle_connections_of_the_same_address_keep_nobody_out(keyed: Server, key: Key) -> None:
    idle = connect_many(keyed, 100, "127.0.0.1")
    assert serve_honest(keyed, key)
    close_all(idle)


@abuse
@pytest.mark.parametrize("source", ["127.0.0.1", OTHER_ADDRESS])
def test_a_thousand_connections_a_second_leave_the_honest_served(keyed: Server, key: Key, source: str) -> None:
    quiet_s = typical_honest(keyed, key)
    stop = threading.Event()
    made = [0]
    idle = connect_many(keyed, 100)

    def flood() -> None:
        held: list[socket.socket] = []
        began = time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(OSError):
                held.append(socket.create_connection((keyed.host, keyed.port), 5.0, (source, 0)))
                made[0] += 1
            if len(held) > 200:
                held.pop(0).close()
            time.sleep(max(0.0, began + made[0] / 1000 - time.monotonic()))
        close_all(held)

    thread = threading.Thread(target=flood)
    thread.start()
    began = time.monotonic()
    try:
        times = sorted(serve_honest(keyed, key) for _ in range(40))
    finally:
        stop.set()
        thread.join()
        close_all(idle)
    rate = made[0] / (time.monotonic() - began)
    print(
        f"{rate:.0f} connections/s; an honest client: median {times[20]:.4f} s, worst {times[-1]:.4f} s,"
        f" without a flood {quiet_s:.4f} s"
    )
    assert rate > 300
    assert times[20] < max(HONEST_S, 10 * quiet_s), "a machine that is busy otherwise is slower without a flood, too"


def test_who_fails_again_and_again_is_shut_out_and_nobody_else(tmp_path: Path) -> None:
    server, path = open_keyed_server(tmp_path)
    key = read_keys(str(path))["zoe"]

    def attempt() -> bool:
        """Whether a proof was looked at."""
        try:
            with SecureClient(server.host, server.port, OTHER_ADDRESS) as client:
                return is_refused(client.greet().answer("zoe", bytes(32)))
        except (OSError, AssertionError):
            return False

    try:
        began, tried = time.monotonic(), 0
        while time.monotonic() < began + 2.0:
            tried += attempt()
            time.sleep(0.01)
        assert 2 <= tried <= 6, "0.1 s, 0.2, 0.4, 0.8, …"
        assert serve_honest(server, key)
    finally:
        server.end()


# --- too slow, after the proof --------------------------------------------------------------------------


@pytest.mark.parametrize("protected", [False, True])
def test_a_message_in_single_bytes_after_the_proof(tmp_path: Path, protected: bool) -> None:
    """At a byte a tenth of a second; the grace is a minute, so the rate is what it is held to here."""
    (tmp_path / "server.toml").write_text("minimum_rate = 0\n" if not protected else "idle_s = 1.0\n")
    server, path = open_keyed_server(tmp_path, "--config", str(tmp_path / "server.toml"))
    try:
        with SecureClient(server.host, server.port) as client:
            client.prove(read_keys(str(path))["zoe"])
            if protected:
                began = time.monotonic()
                assert client.read() is None, "idle for longer than it may be"
                assert 0.5 < time.monotonic() - began < 5.0
            else:
                data = encode(A_QUOTE)
                for position in range(len(data)):
                    client.send_bytes(data[position : position + 1])
                    time.sleep(0.005)
                assert isinstance(client.read(), Quote), "who is slow and honest is served"
    finally:
        server.end()


@abuse
def test_a_byte_a_second_after_the_proof(tmp_path: Path) -> None:
    server, path = open_keyed_server(tmp_path)
    try:
        with SecureClient(server.host, server.port) as client:
            client.prove(read_keys(str(path))["zoe"])
            client.send_bytes(U64.pack(MessageType.EXECUTE) + U64.pack(8) + bytes(8) + U64.pack(1 << 20))
            began = time.monotonic()
            client.socket.settimeout(1.0)
            while time.monotonic() < began + 80:
                with contextlib.suppress(TimeoutError):
                    client.socket.send(b"\0")
                    if client.socket.recv(1) == b"":
                        break
            assert 50 < time.monotonic() - began < 75
    finally:
        server.end()


# --- one takes all --------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_many_clients_of_one_user_do_not_starve_another(tmp_path: Path, same: bool) -> None:
    """With one key for all of them, who comes late waits for all; with one of its own it is among the next."""
    server, path = open_keyed_server(tmp_path, "--slots", "1", names=("greedy", "late"))
    ring = read_keys(str(path))
    gate = Gate(tmp_path)
    order: list[str] = []
    lock = threading.Lock()

    def wait_and_leave(client: SecureClient, name: str) -> None:
        client.send(A_WAIT)
        assert isinstance(client.finish_waiting(), Quote)
        with lock:
            order.append(name)
        client.close()  # the slot is the next one's

    try:
        with contextlib.ExitStack() as clients:
            holder = clients.enter_context(SecureClient(server.host, server.port)).prove(ring["greedy"])
            holder.send(execute(gate.command))
            gate.wait_reached()
            threads = []
            for number in range(9):
                name = "greedy" if number < 8 or same else "late"
                client = clients.enter_context(SecureClient(server.host, server.port)).prove(ring[name])
                told = "late" if number == 8 else "greedy"
                threads.append(threading.Thread(target=wait_and_leave, args=(client, told)))
                threads[-1].start()
                time.sleep(0.02)
            gate.open()
            for thread in threads:
                thread.join()
        assert order.index("late") == (8 if same else 0)
    finally:
        gate.open()
        server.end()


# --- no descriptors left --------------------------------------------------------------------------------


def test_a_server_without_descriptors_waits_for_some_and_does_not_spin(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    server = open_server(
        tmp_path, "--slots", "1", "--workers", "1", "--isolation", "none"
    )  # else nobody counts its files
    try:
        listener = psutil.Process(server.process.pid)
        for process in (listener, *(psutil.Process(pid) for pid in server.worker_pids())):
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 12, hard))
        flood = connect_many(server, 200)
        began = sum(listener.cpu_times()[:2])
        time.sleep(1.0)
        assert sum(listener.cpu_times()[:2]) - began < 0.5, "it does not spin"
        close_all(flood)
        wait_until(lambda: _try_honest(server), "an honest client served")
        assert server.process.poll() is None
    finally:
        server.end()


def _try_honest(server: Server) -> bool:
    try:
        return serve_honest(server, None) > 0
    except (OSError, AssertionError):
        return False
