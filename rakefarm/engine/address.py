"""Where an engine is: `grpc[s]://host[:port][/instance]`, as buildbox and BuildGrid write it."""

from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

SCHEMES = {"grpc": False, "grpcs": True}
"""Whether each is encrypted."""
DEFAULT_PORTS = {"grpc": 50051, "grpcs": 443}
RESERVED = frozenset(
    ("blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs")
)  # fmt: skip
"""Words that an instance's name may not have as a part: ByteStream's resource names could not be told apart."""


class AddressSyntaxError(ValueError):
    """It is no address of an engine; the text says why."""


class EngineAddress(Struct, frozen=True):
    """One engine: `host` without brackets, `instance` perhaps empty."""

    host: str
    port: int
    encrypted: bool
    instance: str = ""

    @property
    def target(self) -> str:
        """As a gRPC channel wants it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """What it is called in every message."""
        return f"grpc{'s' if self.encrypted else ''}://{self.target}{'/' if self.instance else ''}{self.instance}"


def parse_engine(text: str) -> EngineAddress:
    """Raises AddressSyntaxError."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AddressSyntaxError(f"{text!r} is no address of an engine: {error}") from error
    if parts.scheme not in SCHEMES or not parts.hostname or not text.isprintable():
        raise AddressSyntaxError(
            f"{text!r} is no address of an engine: write grpc://host:port, or grpcs://… with TLS, and perhaps /instance"
        )
    if parts.username or parts.query or parts.fragment:
        raise AddressSyntaxError(f"{text!r}: only host, port and /instance belong there; a token has a file of its own")
    if port == 0:
        raise AddressSyntaxError(f"{text!r}: port 0 is nobody's")
    return EngineAddress(
        parts.hostname, port or DEFAULT_PORTS[parts.scheme], SCHEMES[parts.scheme], _instance(text, parts)
    )


def _instance(text: str, parts: SplitResult) -> str:
    instance = parts.path.strip("/")
    if instance and any(part in ("", ".", "..") or part in RESERVED for part in instance.split("/")):
        raise AddressSyntaxError(f"{text!r}: {instance!r} can't be an instance's name")
    return instance
