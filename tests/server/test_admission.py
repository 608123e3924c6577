"""A server that asks for a key: who gets in, who does not, and what either learns."""

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from secure_vocabulary import SecureClient, is_refused, make_keys, open_keyed_server
from server_vocabulary import (
    A_QUOTE,
    Client,
    Gate,
    Server,
    StartServer,
    encode,
    execute,
    hello,
    other_process,
    run_server_command,
    wait_until,
)

from rakefarm.security.keys import Key, read_keys
from rakefarm.security.tls import client_context
from rakefarm.wire import Role
from rakefarm.wire.messages import Ack, Challenge, Error, Proof, Quote, Welcome

PROOF_S = 1.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keyed")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    (place / "server.toml").write_text(f"proof_s = {PROOF_S}\npenalty_s = 0\n")
    names = ("zoe", "sam")
    server, _ = open_keyed_server(place, "--slots", "2", "--config", str(place / "server.toml"), names=names)
    yield server
    server.end()
    assert "Traceback" not in server.log()
    for key in read_keys(str(place / "keys")).values():
        assert key.token.hex() not in server.log() and repr(key.token) not in server.log()


@pytest.fixture
def key(server: Server, place: Path) -> Key:
    return read_keys(str(place / "keys"))["zoe"]


@pytest.fixture
def stranger(server: Server) -> Iterator[SecureClient]:
    """TLS, and not a word."""
    with SecureClient(server.host, server.port) as client:
        yield client


def test_who_proves_the_key_is_welcome_and_sees_the_servers_proof(
    server: Server, stranger: SecureClient, key: Key
) -> None:
    welcome = stranger.prove(key).welcome
    assert welcome is not None and welcome.authentication == "key"
    assert welcome.proof == stranger.proof(key, Role.SERVER) != stranger.proof(key)
    assert "authentication=key encryption=tls" in server.line
    assert isinstance(stranger.ask(), Quote)
    assert stranger.run(b"cat in", {b"in": b"x" * 300_000}).stdout == b"x" * 300_000


def test_an_unknown_name_and_a_wrong_proof_get_the_same_answer(server: Server, key: Key) -> None:
    answers = []
    for name, proof in ((key.name, bytes(32)), ("nobody", bytes(32)), (key.name, b""), ("x" * 4000, bytes(5000))):
        with SecureClient(server.host, server.port) as client:
            answers.append(client.greet().answer(name, proof))
            assert client.read() is None, "and the connection is closed"
    assert all(is_refused(answer) for answer in answers) and len(set(map(str, answers))) == 1


def test_a_key_of_another_name_or_of_another_connection(server: Server, key: Key, place: Path) -> None:
    sam = read_keys(str(place / "keys"))["sam"]
    with SecureClient(server.host, server.port) as client:
        recorded = client.greet().proof(key)
        assert is_refused(client.answer("sam", recorded))
    with SecureClient(server.host, server.port) as client:
        assert is_refused(client.greet().answer("zoe", recorded)), "replayed"
    with SecureClient(server.host, server.port) as client:
        assert is_refused(client.greet().answer("zoe", client.proof(key, Role.SERVER))), "reflected"
    with SecureClient(server.host, server.port) as client:
        assert is_refused(client.greet().answer("zoe", client.proof(sam)))


def test_the_challenge_tells_nothing_and_differs_each_time(server: Server) -> None:
    nonces = set()
    for _ in range(5):
        with SecureClient(server.host, server.port) as client:
            client.send(hello())
            challenge = client.read()
            assert challenge == Challenge(challenge.nonce) and len(challenge.nonce) == 32  # type: ignore[union-attr]
            nonces.add(challenge.nonce)  # type: ignore[union-attr]
    assert len(nonces) == 5


EARLY = [execute(), A_QUOTE, Ack(), Challenge(bytes(32)), Welcome(1, (), b"", "", "", "", 1, 1, "", ())]


@pytest.mark.parametrize("message", EARLY, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("greeted", [False, True])
def test_nothing_but_hello_and_proof_is_heard_before(
    server: Server, stranger: SecureClient, message: Ack, greeted: bool
) -> None:
    if greeted:
        stranger.greet()
    stranger.send(message)
    error = stranger.wait_closed()
    assert error is not None and error.code == "protocol"


def test_each_is_said_once_and_in_order(server: Server, key: Key) -> None:
    with SecureClient(server.host, server.port) as client:
        client.greet().send(hello())
        assert client.wait_closed() == Error("protocol", "client may not send HELLO")
    with SecureClient(server.host, server.port) as client:
        client.send(Proof("zoe", bytes(32)))
        assert client.wait_closed() == Error("protocol", "client may not send PROOF")
    with SecureClient(server.host, server.port) as client:
        client.prove(key).send(Proof("zoe", client.proof(key)))
        assert client.wait_closed() == Error("protocol", "client may not send PROOF")


# --- what is not TLS 1.3 --------------------------------------------------------------------------------


def test_plain_text_on_the_port_for_tls_is_answered_so_that_it_can_be_read(server: Server) -> None:
    with Client(server.host, server.port) as client:
        client.send(hello())
        assert client.wait_closed() == Error("key", "this server speaks TLS and asks for a key")


def test_older_tls_gets_an_alert(server: Server) -> None:
    context = client_context("", "", "")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        SecureClient(server.host, server.port, context=context)


def test_no_session_can_be_resumed(stranger: SecureClient, key: Key) -> None:
    stranger.prove(key)
    assert isinstance(stranger.socket, ssl.SSLSocket)
    assert stranger.socket.version() == "TLSv1.3"
    assert stranger.socket.session is None or not stranger.socket.session.has_ticket


# --- too slow -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["silent", "silent in TLS", "a byte now and then", "after hello"])
def test_all_of_it_has_one_time_limit(server: Server, how: str) -> None:
    began = time.monotonic()
    plain = Client if how == "silent" else SecureClient
    with plain(server.host, server.port) as client:
        if how == "after hello":
            assert isinstance(client, SecureClient)
            client.greet()
        client.socket.settimeout(0.2)
        ended = False
        while not ended and time.monotonic() < began + 10 * PROOF_S:
            try:
                if how == "a byte now and then":
                    client.socket.send(b"\0")
                ended = client.socket.recv(100) == b""
            except TimeoutError:
                pass
            except OSError:
                ended = True
        assert ended and PROOF_S * 0.9 < time.monotonic() - began < PROOF_S + 3.0


# --- keys that are taken away ---------------------------------------------------------------------------


def test_who_loses_its_key_loses_its_connections_and_commands(tmp_path: Path) -> None:
    names = ("zoe", "sam")
    server, path = open_keyed_server(tmp_path, "--slots", "2", names=names)
    ring = read_keys(str(path))
    gates = {name: Gate(tmp_path, name) for name in names}
    try:
        with (
            SecureClient(server.host, server.port) as zoe,
            SecureClient(server.host, server.port) as idle,
            SecureClient(server.host, server.port) as sam,
        ):
            idle.prove(ring["zoe"])
            for client, name in ((zoe, "zoe"), (sam, "sam")):
                client.prove(ring[name]).send(execute(gates[name].command))
                gates[name].wait_reached()
            path.write_text("".join(line for line in path.read_text().splitlines(True) if line.startswith("sam")))
            make_keys(path, "new")
            server.process.send_signal(signal.SIGHUP)
            for client in (idle, zoe):
                client.wait_closed()
            server.wait_for_log("its key zoe is gone")
            gates["sam"].open()
            assert sam.finish().result is not None, "the other's goes on"
        with SecureClient(server.host, server.port) as client:
            assert is_refused(client.greet().answer("zoe", client.proof(ring["zoe"])))
        time.sleep(0.25)  # its address is shut out for a moment
        with SecureClient(server.host, server.port) as client:
            client.prove(read_keys(str(path))["new"])
    finally:
        for gate in gates.values():
            gate.open()
        server.end()


def _is_admitted(server: Server, key: Key) -> bool:
    try:
        with SecureClient(server.host, server.port) as client:
            client.prove(key)
            return True
    except (OSError, AssertionError):
        return False


def test_a_key_file_that_became_bad_changes_nothing(tmp_path: Path) -> None:
    server, path = open_keyed_server(tmp_path, "--slots", "1")
    key = read_keys(str(path))["zoe"]
    try:
        path.chmod(0o644)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("the configuration stays as it was")
        with SecureClient(server.host, server.port) as client:
            client.prove(key)
        said = len(server.log())
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        server.wait_for_log("the keys stay as they were (0 of them)", said)
        path.chmod(0o600)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("configuration read again", said)
        wait_until(lambda: _is_admitted(server, key), "the key known again")
    finally:
        server.end()


# --- by which rule a server starts ----------------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_the_network_without_a_key_is_refused(tmp_path: Path, address: str) -> None:
    if ":" in address and not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6 here")
    status, out, err = run_server_command(tmp_path, "-p", "0", "-i", address)
    assert (status, out) == (2, "") and "there is no key" in err and "--insecure" in err and err.count("\n") == 1


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    make_keys(tmp_path / "keys", "zoe")
    (tmp_path / "keys").chmod(mode)
    status, out, err = run_server_command(tmp_path, "-p", "0", "--key-file", str(tmp_path / "keys"))
    assert (status, out) == (2, "") and "chmod 600" in err and err.count("\n") == 1


def test_insecure_is_shouted_and_told(start_server: StartServer) -> None:
    server = start_server("-i", "0.0.0.0", "--insecure")
    assert "authentication=insecure encryption=none" in server.line
    assert "INSECURE: anybody" in server.log()
    with Client("127.0.0.1", server.port) as client:
        welcome = client.introduce().welcome
        assert welcome is not None and welcome.authentication == "insecure" and welcome.proof == b""


def test_loopback_without_a_key_warns(start_server: StartServer) -> None:
    assert "no key: every user of this machine" in start_server().log()


# --- a Unix socket --------------------------------------------------------------------------------------


class UnixClient(Client):
    """A client on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        directory = os.open(path.parent, os.O_PATH)
        try:
            self.socket.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        self.welcome = None


@pytest.fixture
def start_unix(start_server: StartServer, tmp_path: Path) -> tuple[Server, Path]:
    path = tmp_path / ("long" * 40) / "socket"  # longer than an address has room for
    path.parent.mkdir()
    return start_server("-i", f"unix:{path}"), path


def test_a_unix_socket_is_its_users_alone(start_unix: tuple[Server, Path]) -> None:
    server, path = start_unix
    assert f"listening on unix:{path} " in server.line and "authentication=user" in server.line
    assert path.stat().st_mode & 0o777 == 0o600
    with UnixClient(path) as client:
        welcome = client.introduce().welcome
        assert welcome is not None and welcome.authentication == "user"
        assert client.run(b"echo here").stdout == b"here\n"
    server.end()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_turned_away_even_if_the_permissions_are_wrong(
    start_unix: tuple[Server, Path], tmp_path: Path
) -> None:
    _, path = start_unix
    path.parent.chmod(0o755)
    path.chmod(0o777)
    said = tmp_path / "said"

    def connect() -> None:
        os.chdir(path.parent)
        out = said.open("wb", buffering=0)
        os.setresuid(12345, 12345, 12345)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect("socket")
            sock.sendall(encode(hello()))
            out.write(sock.recv(4096))

    with other_process(connect):
        assert said.stat().st_size
    assert b"another user's" in said.read_bytes()


def test_a_stale_socket_is_replaced_and_anything_else_is_not(tmp_path: Path, start_server: StartServer) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    start_server("-i", f"unix:{path}")
    status, _, err = run_server_command(tmp_path, "-i", f"unix:{path}")
    assert status == 2 and "another server listens there" in err
    (tmp_path / "file").write_text("keep")
    status, _, err = run_server_command(tmp_path, "-i", f"unix:{tmp_path / 'file'}")
    assert status == 2 and (tmp_path / "file").read_text() == "keep"
    assert run_server_command(tmp_path, "-i", "unix:relative")[0] == 2
