"""In a connection's thread: who is this? TLS, HELLO, CHALLENGE, PROOF, and nothing else, within a few seconds in all.

Until the client is admitted nothing of it but HELLO and PROOF is parsed, and it learns nothing of this server.
"""

import hmac
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm import __version__
from rakefarm.config import ConfigError
from rakefarm.logs import logger
from rakefarm.security import keys, local
from rakefarm.security.proof import check_client, make_nonce, prove
from rakefarm.server.entrance import Entrance
from rakefarm.transport import Lost, Transport
from rakefarm.wire import Role
from rakefarm.wire.messages import PROTOCOL_NAME, PROTOCOL_VERSIONS, Challenge, Error, Hello, Message, Proof

if TYPE_CHECKING:
    import ssl

    from rakefarm.security.tls import TlsStream

NOT_ADMITTED = "the key was not accepted: this server does not have it, or has another of that name"
"""The one text for a name that there is not and for a proof that is wrong."""


class Refused(Exception):
    """The conversation ends with an ERROR of this code and text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class NotAdmitted(Refused):
    """The client has failed to prove who it is, which counts against its address. Without a code nothing is sent."""


class Visitor(Struct, frozen=True):
    """A client that is admitted. `user` is whose work it does, as certain as `authentication` is; `client` what it says
    of itself; `version` the protocol's; `proof` our own, to be sent; `key` what it has proved, or None."""

    user: str
    authentication: str
    client: str
    software: str
    version: int
    proof: bytes = b""
    key: keys.Key | None = None


class Admission:
    """A worker's keys, and what it asks of who comes. For any thread. Raises ConfigError when TLS can't be had."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._context, self._certificate = entrance.open_tls()
        self._keyring: keys.Keyring = {}  # where the file has become bad since the start, nobody is admitted
        self.reread()

    @property
    def asks(self) -> bool:
        """Whether a client has anything to prove over the network."""
        return self._entrance.proves

    def reread(self) -> None:
        """Take the key file as it is now. When it can't be read, what was there holds."""
        if self._entrance.key_file:
            try:
                self._keyring = keys.read_keys(self._entrance.key_file)
            except ConfigError as error:
                logger.error("the keys stay as they were (%d of them): %s", len(self._keyring), error)

    def is_revoked(self, visitor: Visitor) -> bool:
        """Whether the key that a client has proved is gone, or another by now."""
        if visitor.key is None:
            return False
        now = self._keyring.get(visitor.key.name)
        return now is None or not hmac.compare_digest(now.token, visitor.key.token)

    def admit(self, transport: Transport, on_first_byte: Callable[[], None]) -> Visitor | None:
        """Find out who it is; None when it left without a word. The caller has set a deadline.

        Raises Refused, Lost or a protocol error.
        """
        entrance = self._entrance
        tls = self._encrypt(transport, self._context, on_first_byte) if self._context is not None else None
        hello = transport.receive()
        if hello is None:
            return None
        assert isinstance(hello, Hello)
        version = _common_version(hello)
        if entrance.key_file:
            return self._challenge(transport, hello, version)
        user = hello.client
        if tls is not None:
            user = tls.peer_name() or hello.client
        elif entrance.authentication == "user":
            user = f"user {_check_user(transport.socket)}"
        return Visitor(user, entrance.authentication, hello.client, hello.software, version)

    def _encrypt(
        self, transport: Transport, context: "ssl.SSLContext", on_first_byte: Callable[[], None]
    ) -> "TlsStream":
        from rakefarm.security.tls import FIRST_BYTE, TlsFailed, TlsStream

        transport.keep_deadline()
        try:
            first = transport.socket.recv(1, socket.MSG_PEEK)
        except OSError as error:
            raise Lost("it said nothing within the time allowed") from error
        if not first:
            raise Lost("it left without a word")
        on_first_byte()
        if first != FIRST_BYTE:
            raise NotAdmitted("key", f"this server speaks TLS and asks for a {self._entrance.authentication}")
        tls = TlsStream(transport.socket, context, server_side=True)
        try:
            tls.handshake(transport.keep_deadline)
        except OSError as error:
            raise Lost("it was silent or gone during the TLS handshake") from error
        except TlsFailed as error:
            raise NotAdmitted("", f"TLS: {error}") from error
        transport.encrypt(tls)
        return tls

    def _challenge(self, transport: Transport, hello: Hello, version: int) -> Visitor | None:
        nonce = make_nonce()
        transport.send(Challenge(nonce))
        answer = transport.receive()
        if answer is None or isinstance(answer, Error):
            return None
        proof = _expect_proof(answer)
        certificate = self._certificate
        key = check_client(self._keyring, proof.key, proof.proof, hello.nonce, nonce, certificate)
        if key is None:
            raise NotAdmitted("key", NOT_ADMITTED)
        ours = prove(key, Role.SERVER, hello.nonce, nonce, certificate)
        return Visitor(key.name, "key", hello.client, hello.software, version, ours, key)


def _expect_proof(message: Message) -> Proof:
    assert isinstance(message, Proof), "the state table lets nothing else through"
    return message


def _check_user(sock: socket.socket) -> int:
    user = local.peer_user(sock)
    if not local.is_trusted(user):
        raise NotAdmitted("key", f"this socket is another user's; it does not serve user {user}")
    return user


def _common_version(hello: Hello) -> int:
    if hello.protocol != PROTOCOL_NAME:
        raise Refused("protocol", f"this is a rakefarm server; the client asked for {hello.protocol!r}")
    for version in PROTOCOL_VERSIONS:
        if version in hello.versions:
            return version
    raise Refused(
        "version",
        f"this server (rakefarm {__version__}) speaks protocol version {PROTOCOL_VERSIONS[0]}, the client"
        f" ({hello.software}) {', '.join(map(str, hello.versions)) or 'none'}: install one release on both",
    )
