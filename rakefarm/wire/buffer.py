"""A byte buffer that answers "here are n bytes" or "not yet"."""

import struct

_U64 = struct.Struct(">Q")


class Buffer:
    """Bytes as they came off the wire, consumed from the front.

    Consumed bytes are dropped lazily, so that many small messages in one segment cost no copying each. `data` from
    `start` on is what is there, for who looks at many numbers in a row; only this class changes either.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.start = 0

    def __len__(self) -> int:
        return len(self.data) - self.start

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end."""
        if self.start == len(self.data):
            self.data.clear()
            self.start = 0
        self.data += data

    def peek_u64(self, offset: int) -> int | None:
        """The 8-byte big-endian number at `offset` from the front, or None when it isn't there yet."""
        start = self.start + offset
        if start + 8 > len(self.data):
            return None
        number: int = _U64.unpack_from(self.data, start)[0]
        return number

    def peek(self, count: int) -> bytes:
        """Up to `count` bytes from the front, without consuming them."""
        return bytes(memoryview(self.data)[self.start : self.start + count])

    def take(self, count: int) -> bytes | None:
        """Exactly `count` bytes, consumed, or None when there are fewer."""
        end = self.start + count
        if end > len(self.data):
            return None
        taken = bytes(memoryview(self.data)[self.start : end])
        self.skip(count)
        return taken

    def skip(self, count: int) -> None:
        """Consume so many of the bytes that are there."""
        self.start += count
        if self.start > 65536:
            del self.data[: self.start]
            self.start = 0
