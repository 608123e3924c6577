"""TLS 1.3, and nothing older, over a socket that stays a plain one.

The standard library's `SSLObject` works on memory, so reads and writes remain the transport's own, with its time
limits and polls: after every read nothing that is complete is left inside, so a socket with nothing to read has nothing
to say.
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from rakefarm.config import ConfigError
from rakefarm.security import keys

RECORD_BYTES = 16 << 10
WRITE_BYTES = 256 << 10
FIRST_BYTE = b"\x16"
"""What TLS begins with, and no message of ours."""


class TlsFailed(Exception):
    """The two ends can't agree, or one broke the protocol; the text says which, for a person."""


def server_context(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    """For a server with this certificate and private key (PEM files), and an authority for its clients' or "".

    Raises ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Tickets would come behind the handshake, and whoever waits for a message would be woken for them.
    context.num_tickets = 0
    _load(context, certificate, key, authority)
    if authority:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    """For a client: with an authority the server's certificate is checked against it and its name; without one any will
    do, since the proofs pin it. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not authority:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load(context, certificate, key, authority)
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str, authority: str) -> None:
    if authority:
        try:
            context.load_verify_locations(authority)
        except OSError as error:  # SSLError is one
            raise ConfigError(f"tls_authority {authority}: {_explain(error)}") from error
    if not certificate:
        return
    with contextlib.closing(_Descriptor(keys.open_private(key or certificate, "a private key"))) as private:
        try:
            # By its descriptor: what was checked is what is read.
            context.load_cert_chain(certificate if key else private.path, private.path, _no_password)
        except OSError as error:
            raise ConfigError(f"tls_certificate {certificate}: {_explain(error)}") from error


def _no_password() -> bytes:
    raise ConfigError("tls_private_key: it needs a password, which a server can't type; store it without one")


class _Descriptor:
    def __init__(self, number: int) -> None:
        self._number = number
        self.path = f"/proc/self/fd/{number}"

    def close(self) -> None:
        os.close(self._number)


class TlsStream:
    """One end of a TLS connection over `sock`, which stays its owner's."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool, name: str = "") -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=name or None
        )
        self._ended = False
        self._unread = False

    def handshake(self, before_read: Callable[[], None]) -> None:
        """Agree with the other end. Raises TlsFailed, what `before_read` raises, and OSError."""
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    self._flush()  # an alert, which tells the other end
                raise TlsFailed(_explain(error)) from error
            else:
                self._flush()
                self._unread = True  # the last read may have brought more than the handshake's end
                return
            before_read()
            data = self._socket.recv(RECORD_BYTES)
            if not data:
                raise TlsFailed("the peer closed the connection during the TLS handshake")
            self._incoming.write(data)

    @property
    def peer_certificate(self) -> bytes:
        """The other end's, in DER; empty when it showed none."""
        return self._object.getpeercert(binary_form=True) or b""

    def peer_name(self) -> str:
        """The common name in the other end's certificate, which has been checked."""
        told: Any = self._object.getpeercert() or {}  # the type that the library declares has no such depth
        names = [value for part in told.get("subject", ()) for name, value in part if name == "commonName"]
        return str(names[0]) if names else ""

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and write everything. Raises OSError."""
        view = memoryview(data)
        for position in range(0, len(view), WRITE_BYTES):
            self._object.write(view[position : position + WRITE_BYTES])
            self._flush()

    def recv(self, count: int) -> bytes | None:
        """One read of the socket, of at most `count` bytes, and all that can be decrypted then: None when that is
        nothing yet, empty at the end. Raises OSError."""
        if self._ended:
            return b""
        if self._unread:
            self._unread = False
        elif data := self._socket.recv(count):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        parts = []
        try:
            while part := self._object.read(RECORD_BYTES):
                parts.append(part)
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            self._ended = True  # whether it may end here is for the protocol inside to judge
        except ssl.SSLError as error:
            raise OSError(error.errno, f"TLS: {_explain(error)}") from error
        if self._outgoing.pending:
            self._flush()
        return b"".join(parts) if parts or self._ended else None

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.sendall(self._outgoing.read())


def certificate_bytes(path: str) -> bytes:
    """The first certificate of a PEM file, in DER. Raises ConfigError."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(1 << 20)
        begin, end = text.index("-----BEGIN CERTIFICATE-----"), text.index("-----END CERTIFICATE-----")
        return ssl.PEM_cert_to_DER_cert(text[begin:end] + "-----END CERTIFICATE-----\n")
    except OSError as error:
        raise ConfigError(f"tls_certificate {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"tls_certificate {path}: no certificate in PEM") from error


_REASONS = {
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "HTTP_REQUEST": "the peer does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "the peer speaks only TLS that is older than 1.3",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer speaks only TLS that is older than 1.3",
    "CERTIFICATE_VERIFY_FAILED": "the peer's certificate is not of our authority, or not for this name",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer showed no certificate, and this server asks for one",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server asks for a certificate: set tls_certificate in client.toml",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know the authority of our certificate",
    "KEY_VALUES_MISMATCH": "the private key is not the certificate's",
}


def _explain(error: OSError) -> str:
    """One line about what the library or the system says."""
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_REASONS['CERTIFICATE_VERIFY_FAILED']}: {error.verify_message}"
    return _REASONS.get(reason) or str(reason).lower().replace("_", " ") or error.strerror or str(error)
