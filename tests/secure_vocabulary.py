"""The words that tests of keys are written in: a key file, a server that asks for one, clients that prove it or cheat."""

import socket
import ssl
from pathlib import Path

from server_vocabulary import DEADLINE_S, Client, Server, hello, open_server

from rakefarm.security import keys
from rakefarm.security.proof import prove
from rakefarm.security.tls import client_context
from rakefarm.wire import Role
from rakefarm.wire.messages import Challenge, Error, Message, Proof, Welcome


def make_keys(path: Path, *names: str) -> dict[str, keys.Key]:
    """A key file with these names."""
    return {name: keys.add_key(str(path), name) for name in names}


def open_keyed_server(scratch: Path, *options: str, names: tuple[str, ...] = ("zoe",)) -> tuple[Server, Path]:
    """A server that asks for one of these keys, and its key file."""
    path = scratch / "keys"
    if not path.exists():
        make_keys(path, *names)
    environment = {"XDG_STATE_HOME": str(scratch / "state")}
    return open_server(scratch, "--key-file", str(path), *options, env=environment), path


class SecureClient(Client):
    """A connection over TLS that has proved nothing yet. `source` is the address that it comes from."""

    def __init__(self, host: str, port: int, source: str = "", context: ssl.SSLContext | None = None) -> None:
        plain = socket.create_connection((host, port), DEADLINE_S, (source, 0) if source else None)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket = (context or client_context("", "", "")).wrap_socket(plain)
        except OSError:
            plain.close()
            raise
        self.certificate = self.socket.getpeercert(binary_form=True) or b""
        self.nonce = bytes(range(32))
        self.challenge = b""
        self.welcome: Welcome | None = None

    def greet(self) -> "SecureClient":
        """HELLO and CHALLENGE."""
        self.send(hello(nonce=self.nonce))
        challenge = self.read()
        assert isinstance(challenge, Challenge), challenge
        self.challenge = challenge.nonce
        return self

    def proof(self, key: keys.Key, role: Role = Role.CLIENT) -> bytes:
        """The right proof for this connection."""
        return prove(key, role, self.nonce, self.challenge, self.certificate)

    def answer(self, name: str, proof: bytes) -> Message | None:
        """Send this proof; what the server says to it."""
        self.send(Proof(name, proof))
        return self.read()

    def prove(self, key: keys.Key) -> "SecureClient":
        """HELLO to WELCOME."""
        self.greet()
        welcome = self.answer(key.name, self.proof(key))
        assert isinstance(welcome, Welcome), welcome
        self.welcome = welcome
        return self


def is_refused(message: Message | None) -> bool:
    """Whether that is the one answer to a proof that is wrong."""
    return isinstance(message, Error) and message.code == "key" and message.text.startswith("the key was not accepted")
