"""Builds with keys, from the command line to the servers and back, and builds that must not take place."""

import contextlib
import datetime
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from farm_vocabulary import Project
from secure_vocabulary import make_keys, open_keyed_server
from server_vocabulary import Server, StartServer, encode, open_server, wait_until

from rakefarm.security import certificate
from rakefarm.security.keys import read_keys
from rakefarm.security.tls import client_context, server_context
from rakefarm.wire.messages import Challenge, Welcome

FAKE_SSH = f"""\
#!{sys.executable}
import os, socket, sys, threading
words = sys.argv[1:]
assert words[-2] == "--", words
if words[-1] == "nowhere":
    sys.exit("ssh: connect to host nowhere port 22: No route to host")
host, port = words[words.index("-W") + 1].split(":")
sock = socket.create_connection((host, int(port)))
def pump():
    while data := os.read(0, 65536):
        sock.sendall(data)
    os._exit(0)
threading.Thread(target=pump, daemon=True).start()
while data := sock.recv(65536):
    os.write(1, data)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keyed")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    """A server that asks for zoe's key, and keeps an audit log."""
    (place / "server.toml").write_text("penalty_s = 0\n")
    audit = ("--audit-log", str(place / "audit"), "--config", str(place / "server.toml"))
    server, _ = open_keyed_server(place, "--slots", "2", *audit)
    yield server
    server.end()
    assert "Traceback" not in server.log()


@pytest.fixture
def keyed(project: Project, server: Server, place: Path) -> Project:
    """A project whose user has the key; one remote action."""
    config = project.scratch / "config" / "rakefarm"
    config.mkdir(parents=True)
    shutil.copy(place / "keys", config / "keys")
    (config / "keys").chmod(0o600)
    project.write("in", b"x" * 300_000)
    project.rakefile("one:", "remote-cat in > out", "> requires in")
    return project


def test_a_build_with_a_key(keyed: Project, server: Server, place: Path) -> None:
    built = keyed.build("--json", "--fallback", "never", hosts=[server])
    assert built.status == 0 and keyed.read("out") == keyed.read("in")
    key = read_keys(str(place / "keys"))["zoe"]
    (ready,) = [event for line in built.stdout.splitlines() if (event := json.loads(line))["event"] == "host_ready"]
    assert ready["authentication"] == "key"
    assert (place / "audit").stat().st_mode & 0o777 == 0o600

    def told() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (place / "audit").read_text().splitlines()]
        return [line for line in lines if line["event"] == "ran"]

    ran = wait_until(told, "the audit log says what ran")[0]  # once the client's word has come that it has everything
    assert (ran["user"], ran["command"], ran["outcome"], ran["status"]) == ("zoe", "cat in > out", "exited", 0)
    ledger = b"".join(path.read_bytes() for path in keyed.scratch.rglob("*.jsonl"))
    for told in (built.stdout, built.stderr, ledger, (place / "audit").read_bytes(), server.log().encode()):
        assert key.token.hex().encode() not in told and key.token not in told


def test_without_the_key_nothing_is_sent(keyed: Project, server: Server) -> None:
    built = keyed.build("--key-file", "none", "--fallback", "never", hosts=[server])
    assert built.status == 3 and b"this server speaks TLS and asks for a key" in built.stderr


def test_with_another_key_of_that_name_nothing_is_sent(keyed: Project, server: Server, tmp_path: Path) -> None:
    make_keys(tmp_path / "other", "zoe")
    built = keyed.build("--key-file", str(tmp_path / "other"), "--fallback", "never", hosts=[server])
    assert built.status == 3 and b"the key was not accepted" in built.stderr


def test_a_key_file_that_others_can_read_ends_it_with_status_2(keyed: Project, server: Server) -> None:
    (keyed.scratch / "config" / "rakefarm" / "keys").chmod(0o644)
    built = keyed.build(hosts=[server])
    assert built.status == 2 and b"chmod 600" in built.stderr and built.stderr.count(b"\n") == 1


def test_a_client_with_a_key_is_not_talked_down_by_a_plain_server(keyed: Project, start_server: StartServer) -> None:
    plain = start_server("--slots", "1")
    built = keyed.build("--fallback", "never", hosts=[plain])
    assert built.status == 3 and b"the peer does not speak TLS" in built.stderr
    assert "this is TLS, not rakefarm" in plain.log()


@pytest.mark.parametrize("option", [[], ["--insecure"]])
def test_without_a_key_the_network_is_not_talked_to(project: Project, option: list[str]) -> None:
    project.rakefile("one:", "remote-true")
    built = project.build(*option, "--fallback", "never", hosts=["192.0.2.1:9"])
    assert built.status == 3 and (b"there is no key" in built.stderr) is not bool(option)


def test_an_insecure_server_is_warned_of_once(project: Project, start_server: StartServer) -> None:
    server = start_server("-i", "0.0.0.0", "--insecure", "--slots", "2")
    project.rakefile("one:", "remote-true", "remote-true", "remote-true")
    built = project.build(hosts=[f"127.0.0.1:{server.port}"])
    assert built.status == 0 and built.stderr.count(b"is insecure") == 1


# --- who stands between ---------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Somebody who serves every connection so; answers its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=_serve, args=(serve, sock), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def _serve(serve: Callable[[socket.socket], None], sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        serve(sock)


def relay(one: socket.socket, other: socket.socket, seen: bytearray) -> None:
    def pump(source: socket.socket, goal: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                seen.extend(data)
                goal.sendall(data)
        with contextlib.suppress(OSError):
            goal.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=pump, args=(other, one), daemon=True)
    thread.start()
    pump(one, other)
    thread.join()


def test_a_man_in_the_middle_with_a_certificate_of_his_own(keyed: Project, server: Server, tmp_path: Path) -> None:
    """He reads all and changes nothing; it is his certificate that gives him away, at the server."""
    context = server_context(certificate.own_certificate({"XDG_STATE_HOME": str(tmp_path)}), "", "")
    seen = bytearray()

    def stand_between(sock: socket.socket) -> None:
        with (
            context.wrap_socket(sock, server_side=True) as client,
            socket.create_connection((server.host, server.port)) as plain,
            client_context("", "", "").wrap_socket(plain) as true,
        ):
            relay(client, true, seen)

    with listening(stand_between) as address:
        built = keyed.build("--fallback", "never", hosts=[address])
    assert built.status == 3 and b"the key was not accepted" in built.stderr
    assert b"cat in" not in seen and b"zoe" in seen, "he has seen a name and a proof that is good for nothing"


def test_one_who_only_carries_bytes_is_no_matter(keyed: Project, server: Server) -> None:
    seen = bytearray()

    def carry(sock: socket.socket) -> None:
        with socket.create_connection((server.host, server.port)) as true:
            relay(sock, true, seen)

    with listening(carry) as address:
        assert keyed.build("--fallback", "never", hosts=[address]).status == 0
    # Three bytes would be found now and then in as many random ones as there are here.
    assert b"cat in" not in seen and b"x" * 100 not in seen and b"zoe" + (32).to_bytes(8, "big") not in seen


@pytest.mark.parametrize("proof", [b"", bytes(32)])
@pytest.mark.parametrize("challenge", [False, True])
def test_a_server_that_proves_nothing_gets_nothing(
    keyed: Project, tmp_path: Path, proof: bytes, challenge: bool
) -> None:
    context = server_context(certificate.own_certificate({"XDG_STATE_HOME": str(tmp_path)}), "", "")
    heard = bytearray()

    def pretend(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as client:
            heard.extend(client.recv(65536))
            if challenge:
                client.sendall(encode(Challenge(bytes(32))))
                heard.extend(client.recv(65536))
            client.sendall(encode(Welcome(1, (), proof, "key", "liar", "0", 4, 4, "none", ())))
            while data := client.recv(65536):
                heard.extend(data)

    with listening(pretend) as address:
        built = keyed.build("--fallback", "never", hosts=[address])
    assert built.status == 3 and b"cat in" not in heard
    assert (b"has not proved" if challenge else b"asks for no key") in built.stderr


# --- other ways -----------------------------------------------------------------------------------------


def test_a_build_through_ssh(project: Project, start_server: StartServer) -> None:
    server = start_server("--slots", "2")
    programs = project.scratch / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(FAKE_SSH)
    (programs / "ssh").chmod(0o755)
    env = {"PATH": f"{programs}:{os.environ['PATH']}"}
    project.write("in", b"x" * 300_000)
    project.rakefile("one:", "remote-cat in > out", "> requires in")
    built = project.build("--fallback", "never", hosts=[f"ssh://me@lab1:{server.port}"], env=env)
    assert built.status == 0 and project.read("out") == project.read("in"), built.stderr
    built = project.build("--fallback", "never", hosts=["ssh://nowhere"], env=env)
    assert built.status == 3 and b"ssh: connect to host nowhere port 22: No route to host" in built.stderr
    built = project.build("--fallback", "never", hosts=["ssh://lab1"], env={"PATH": "/nonexistent"})
    assert built.status == 3 and b"ssh can't be started" in built.stderr


def test_a_build_through_ssh_with_a_key(keyed: Project, server: Server) -> None:
    programs = keyed.scratch / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(FAKE_SSH)
    (programs / "ssh").chmod(0o755)
    env = {"PATH": f"{programs}:{os.environ['PATH']}"}
    assert keyed.build("--fallback", "never", hosts=[f"ssh://lab1:{server.port}"], env=env).status == 0


def test_a_build_through_a_unix_socket_needs_no_key(keyed: Project, start_server: StartServer, tmp_path: Path) -> None:
    start_server("-i", f"unix:{tmp_path}/socket")
    assert keyed.build("--fallback", "never", hosts=[f"unix:{tmp_path}/socket"]).status == 0
    built = keyed.build("--fallback", "never", hosts=[f"unix:{tmp_path}/nothing"])
    assert built.status == 3 and b"is rakeserver running there?" in built.stderr


# --- an authority of one's own --------------------------------------------------------------------------


class Authority:
    """Signs certificates; each is a PEM file with its private key."""

    def __init__(self, place: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        place.mkdir()
        self._place = place
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.path = self.sign("authority", authority=True)

    def sign(self, name: str, authority: bool = False) -> Path:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        private = self._private if authority else ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        signed = builder.sign(self._private, hashes.SHA256())
        path = self._place / f"{name}.pem"
        plain = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(plain + signed.public_bytes(serialization.Encoding.PEM))
        path.chmod(0o600)
        return path


def settings(**values: Path) -> str:
    return "".join(f'{name} = "{value}"\n' for name, value in values.items())


def test_certificates_of_ones_own_authority(project: Project, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    (tmp_path / "server.toml").write_text(
        settings(tls_authority=ours.path, tls_certificate=ours.sign("localhost")) + "penalty_s = 0\n"
    )
    scratch = tmp_path / "server"
    scratch.mkdir()
    server = open_server(scratch, "--config", str(tmp_path / "server.toml"))
    project.rakefile("one:", "remote-true")
    configured = project.write("client.toml")

    def build(host: str, **values: Path) -> bytes:
        configured.write_text(settings(**values))
        built = project.build("--config", str(configured), "--fallback", "never", hosts=[f"{host}:{server.port}"])
        return b"well" if built.status == 0 else built.stderr

    try:
        assert "authentication=certificate encryption=tls" in server.line
        zoe = ours.sign("zoe")
        assert build("localhost", tls_authority=ours.path, tls_certificate=zoe) == b"well"
        assert "'zoe' by certificate" in server.log()
        assert b"not for this name" in build("127.0.0.1", tls_authority=ours.path, tls_certificate=zoe)
        assert b"not of our authority" in build("localhost", tls_authority=theirs.path, tls_certificate=zoe)
        assert b"asks for a certificate" in build("localhost", tls_authority=ours.path)
        assert build("localhost", tls_authority=ours.path, tls_certificate=theirs.sign("zoe")) != b"well"
    finally:
        server.end()
