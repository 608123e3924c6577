"""TLS over a socket that stays plain: what arrives together, in pieces, or is not TLS at all."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rakefarm.config import ConfigError
from rakefarm.security import certificate, tls


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    return certificate.own_certificate({"XDG_STATE_HOME": str(tmp_path_factory.mktemp("state"))})


def no_limit() -> None:
    """Before each read of a handshake."""


@pytest.fixture
def pair(pem: str) -> Iterator[tuple[tls.TlsStream, tls.TlsStream, socket.socket]]:
    """Client, server, and the server's socket."""
    ours, theirs = socket.socketpair()
    client = tls.TlsStream(ours, tls.client_context("", "", ""), server_side=False, name="lab1")
    server = tls.TlsStream(theirs, tls.server_context(pem, "", ""), server_side=True)
    thread = threading.Thread(target=client.handshake, args=(no_limit,))
    thread.start()
    server.handshake(no_limit)
    thread.join()
    with ours, theirs:
        yield client, server, theirs


def read_all(stream: tls.TlsStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += stream.recv(4096) or b""
    return data


def test_the_client_sees_the_servers_certificate(
    pair: tuple[tls.TlsStream, tls.TlsStream, socket.socket], pem: str
) -> None:
    assert pair[0].peer_certificate == tls.certificate_bytes(pem) != b""


def test_after_each_read_nothing_complete_is_left_inside(
    pair: tuple[tls.TlsStream, tls.TlsStream, socket.socket],
) -> None:
    client, server, sock = pair
    server.recv(1)  # what came with the handshake: nothing
    for number in range(20):
        client.sendall(b"x" * number + b"\n")
    assert server.recv(1 << 16) == b"".join(b"x" * number + b"\n" for number in range(20))
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1 << 16)


def test_half_a_record_is_nothing_yet(pair: tuple[tls.TlsStream, tls.TlsStream, socket.socket], pem: str) -> None:
    client, server, _ = pair
    server.recv(1)
    client.sendall(b"hello")
    assert server.recv(4) is None
    assert server.recv(1 << 16) == b"hello"


def test_much_in_both_directions(pair: tuple[tls.TlsStream, tls.TlsStream, socket.socket]) -> None:
    client, server, _ = pair
    data = bytes(range(256)) * 5000
    for one, other in ((client, server), (server, client)):
        thread = threading.Thread(target=one.sendall, args=(data,))
        thread.start()
        assert read_all(other, len(data)) == data
        thread.join()


def test_the_end(pair: tuple[tls.TlsStream, tls.TlsStream, socket.socket]) -> None:
    client, server, sock = pair
    server.recv(1)
    sock.shutdown(socket.SHUT_WR)
    client.recv(1)
    assert client.recv(100) == b"" == client.recv(100)


@contextlib.contextmanager
def against(pem: str, data: bytes) -> Iterator[tls.TlsStream]:
    """A server's end, and a peer that has sent this."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        yield tls.TlsStream(theirs, tls.server_context(pem, "", ""), server_side=True)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01" + bytes(200), b"\x16", b""])
def test_what_is_no_handshake_ends_it(pem: str, data: bytes) -> None:
    with against(pem, data) as server, pytest.raises(tls.TlsFailed):
        server.handshake(no_limit)


def test_older_tls_is_refused(pem: str) -> None:
    ours, theirs = socket.socketpair()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with ours, theirs:
        client = tls.TlsStream(ours, old, server_side=False)
        thread = threading.Thread(target=_try, args=(client,))
        thread.start()
        server = tls.TlsStream(theirs, tls.server_context(pem, "", ""), server_side=True)
        with pytest.raises(tls.TlsFailed, match=r"older than 1\.3"):
            server.handshake(no_limit)
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join()


def _try(client: tls.TlsStream) -> None:
    with contextlib.suppress(tls.TlsFailed, OSError):
        client.handshake(no_limit)


# --- certificates ---------------------------------------------------------------------------------------


def test_it_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    path = certificate.own_certificate(environ)
    first = Path(path).read_bytes()
    assert Path(path).stat().st_mode & 0o777 == 0o600 and certificate.own_certificate(environ) == path
    assert Path(path).read_bytes() == first
    text = subprocess.run(["openssl", "x509", "-noout", "-text"], input=first, capture_output=True).stdout
    assert not text or b"prime256v1" in text
    Path(path).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        certificate.own_certificate(environ)


def test_without_the_library_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> bytes:
        raise ImportError("cryptography")

    monkeypatch.setattr(certificate, "_make", missing)
    with pytest.raises(ConfigError, match="pip install cryptography"):
        certificate.own_certificate({"XDG_STATE_HOME": str(tmp_path)})


@pytest.mark.parametrize("content", ["", "rubbish", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate(tmp_path: Path, content: str) -> None:
    (tmp_path / "pem").write_text(content)
    (tmp_path / "pem").chmod(0o600)
    with pytest.raises(ConfigError, match="tls_certificate"):
        tls.server_context(str(tmp_path / "pem"), "", "")
    with pytest.raises(ConfigError, match="tls_authority"):
        tls.client_context("", "", str(tmp_path / "pem"))
