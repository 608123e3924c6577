"""A byte buffer that answers "here are n bytes" or "not yet"."""

import struct

_U64 = struct.Struct(">Q")


class Buffer:
    """Bytes as they came off the wire, consumed from the front.

    Consumed bytes are dropped lazily, so that many small messages in one segment cost no copying each.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._start = 0

    def __len__(self) -> int:
        return len(self._data) - self._start

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end."""
        if self._start == len(self._data):
            self._data.clear()
            self._start = 0
        self._data += data

    def peek_u64(self, offset: int) -> int | None:
        """The 8-byte big-endian number at `offset` from the front, or None when it isn't there yet."""
        start = self._start + offset
        if start + 8 > len(self._data):
            return None
        number: int = _U64.unpack_from(self._data, start)[0]
        return number

    def peek(self, count: int) -> bytes:
        """Up to `count` bytes from the front, without consuming them."""
        return bytes(self._data[self._start : self._start + count])

    def take(self, count: int) -> bytes | None:
        """Exactly `count` bytes, consumed, or None when there are fewer."""
        end = self._start + count
        if end > len(self._data):
            return None
        taken = bytes(memoryview(self._data)[self._start : end])
        self._start = end
        if self._start > 65536:
            del self._data[: self._start]
            self._start = 0
        return taken
