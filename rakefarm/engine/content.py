"""Content by its digest: how we know it (bytes and a size), and how the interface writes it."""

import hashlib

from msgspec import Struct

from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.errors import EngineUnbelievable

LARGEST_BYTES = 1 << 40
"""No file is larger; what says so is wrong."""
_HEX = frozenset("0123456789abcdef")


class Content(Struct, frozen=True):
    """A SHA-256 and a size in bytes."""

    sha256: bytes
    size: int

    @property
    def name(self) -> str:
        """As a part of a ByteStream resource's name."""
        return f"{self.sha256.hex()}/{self.size}"

    @property
    def digest(self) -> api.Digest:
        """The interface's form."""
        return api.Digest(hash=self.sha256.hex(), size_bytes=self.size)


def content_of(data: bytes) -> Content:
    """What these bytes are known by."""
    return Content(hashlib.sha256(data).digest(), len(data))


EMPTY = content_of(b"")
"""What everybody has without being sent it."""


def read_digest(digest: api.Digest) -> Content:
    """A digest that came from outside. Raises EngineUnbelievable unless it is a SHA-256 and a possible size."""
    text = digest.hash
    if len(text) != 64 or not _HEX.issuperset(text):
        raise EngineUnbelievable(f"{text[:80]!r} is no SHA-256")
    if not 0 <= digest.size_bytes <= LARGEST_BYTES:
        raise EngineUnbelievable(f"a content of {digest.size_bytes} bytes")
    content = Content(bytes.fromhex(text), digest.size_bytes)
    if not content.size and content != EMPTY:
        raise EngineUnbelievable("no bytes with another digest than that of no bytes")
    return content
