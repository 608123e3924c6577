"""What lets us in at an engine: certificates of TLS, and a bearer token, whose file is read for every call.

A token is only sent where nobody listens: by TLS, or on loopback. It is never kept, printed or put into an event.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm.config import ConfigError, EngineSettings
from rakefarm.engine.address import AddressSyntaxError, EngineAddress, parse_engine
from rakefarm.security.network import is_loopback_name

if TYPE_CHECKING:
    import ssl

    from rakefarm.engine.quiet_grpc import grpc

TOKEN_BYTES = 64 << 10
PROPERTIES = 64


class Access(Struct, frozen=True):
    """The files; empty names are for what there is none of."""

    token_file: str = ""
    authority: str = ""
    certificate: str = ""
    private_key: str = ""

    def credentials(self) -> "grpc.ChannelCredentials":
        """For a channel with TLS; without `authority` the system's authorities count. Raises ConfigError."""
        from rakefarm.engine.quiet_grpc import grpc

        authority, certificate, key = [
            _read(path, what) if path else None
            for path, what in (
                (self.authority, "tls_authority"),
                (self.certificate, "tls_certificate"),
                (self.private_key, "tls_private_key"),
            )
        ]
        return grpc.ssl_channel_credentials(authority or _system_authorities(), key, certificate)

    def tls_context(self) -> "ssl.SSLContext":
        """The same for Python's own TLS, which says what is wrong where gRPC only waits. Raises ConfigError."""
        import ssl

        try:
            context = ssl.create_default_context(cafile=os.path.expanduser(self.authority) or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"[engine] tls_authority: {self.authority}: {_no_pem(error)}") from error
        if self.certificate:
            certificate, key = os.path.expanduser(self.certificate), os.path.expanduser(self.private_key)
            try:
                context.load_cert_chain(certificate, key, lambda: b"")  # without one it would ask at the terminal
            except (OSError, ValueError) as error:
                raise ConfigError(f"[engine] tls_certificate, tls_private_key: {_no_pem(error)}") from error
        context.set_alpn_protocols(["h2"])
        return context

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with a call: the token as it is now, since whoever issues it renews it. Raises ConfigError."""
        if not self.token_file:
            return ()
        token = _read(self.token_file, "token_file").decode("ascii", "replace").strip()
        if not token or not token.isprintable() or " " in token or not token.isascii():
            raise ConfigError(f"{self.token_file}: no token: it has to be one line of printable ASCII")
        return (("authorization", f"Bearer {token}"),)

    def hint(self) -> str:
        """What to do when we are not let in."""
        if self.token_file:
            return f"see whether the token in {self.token_file} is the right one, and still good"
        return "put a token in a file and name it: RAKEFARM_ENGINE_TOKEN_FILE, or token_file in [engine]"


def _read(path: str, what: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read(TOKEN_BYTES)
    except OSError as error:
        raise ConfigError(f"[engine] {what}: {path}: {error.strerror}") from error


def _no_pem(error: Exception) -> str:
    import ssl

    if isinstance(error, ssl.SSLError) and "MISMATCH" in (error.reason or ""):
        return "the key is not the certificate's"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror
    return "not in PEM format, or with a passphrase"


def _system_authorities() -> bytes | None:
    """The system's certificate bundle; gRPC brings one of its own, which a site's administrator can't add to."""
    import ssl

    place = ssl.get_default_verify_paths().cafile
    return _read(place, "the system's authorities") if place and os.path.isfile(place) else None


def check_engine(settings: EngineSettings, insecure: bool) -> tuple[EngineAddress, Access]:
    """Where the engine of these settings is and what lets us in, its files looked at. Raises ConfigError."""
    try:
        from google.protobuf import message  # noqa: F401

        from rakefarm.engine import quiet_grpc  # noqa: F401
    except ImportError as error:
        text = "an engine is spoken to by gRPC, which is not installed: pip install 'rakefarm[grid]'"
        raise ConfigError(text) from error
    try:
        address = parse_engine(settings.url)
    except AddressSyntaxError as error:
        raise ConfigError(str(error)) from error
    access = Access(settings.token_file, settings.tls_authority, settings.tls_certificate, settings.tls_private_key)
    if bool(access.certificate) != bool(access.private_key):
        raise ConfigError("[engine] tls_certificate and tls_private_key: one is no use without the other")
    if not address.encrypted and not is_loopback_name(address.host):
        if access.token_file:
            raise ConfigError(f"{address.name}: a token is not sent in clear text over a network; write grpcs://")
        if not insecure:
            text = (
                f"{address.name}: anybody on the way could read and change what is sent: write grpcs://, or --insecure"
            )
            raise ConfigError(text)
    if address.encrypted:
        access.credentials()
        access.tls_context()
    elif access.authority or access.certificate:
        raise ConfigError(f"{address.name}: certificates are of no use without TLS: write grpcs://")
    access.metadata()
    return address, access


def parse_properties(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """KEY=VALUE each, in order. Raises ConfigError."""
    parsed = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not text.isprintable() or len(text) > 1000:
            raise ConfigError(f"engine property {text[:100]!r}: write KEY=VALUE")
        parsed.append((key, value))
    if len(parsed) > PROPERTIES:
        raise ConfigError(f"{len(parsed)} engine properties; {PROPERTIES} are the most")
    return tuple(parsed)
