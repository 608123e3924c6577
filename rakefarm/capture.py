"""What a command writes to one stream, kept: in memory while it is small, in a file without a name when not."""

import os
from collections.abc import Callable, Iterator

READ_BYTES = 65536
SPILL_BYTES = 1 << 20
"""What a captured stream holds in memory; the rest goes to an unlinked temporary file."""


def spill_to_disk() -> int:
    """An unlinked temporary file. Raises OSError."""
    import tempfile

    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def spill_to_memory() -> int:
    """A file without a name in memory, for who has no directory of its own. Raises OSError."""
    return os.memfd_create("output", os.MFD_CLOEXEC)


class Capture:
    """What a command wrote to one stream: in memory while small, in a file without a name when not.

    What comes beyond `most_bytes` (0: no limit) is counted and forgotten.
    """

    def __init__(self, spill: Callable[[], int] = spill_to_disk, most_bytes: int = 0) -> None:
        self.size = 0
        self.cut = 0
        """Bytes that were forgotten."""
        self._spill = spill
        self._most = most_bytes
        self._pieces: list[bytes] = []
        self._file: int | None = None

    def write(self, data: bytes) -> None:
        """Append. Raises OSError when the spill file can't take it."""
        if self._most and self.size + len(data) > self._most:
            kept = max(0, self._most - self.size)
            self.cut += len(data) - kept
            data = data[:kept]
        self._append(data)

    def mark_cut(self, mark: bytes) -> None:
        """Append beyond the limit, where something was cut, that it was."""
        self._append(mark)

    def _append(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is None and self.size <= SPILL_BYTES:
            self._pieces.append(data)
            return
        if self._file is None:
            self._file = self._spill()
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def file(self) -> int | None:
        """The descriptor of the spill file, or None while everything is in memory."""
        return self._file

    def pieces(self) -> Iterator[bytes]:
        """Everything written, from the beginning."""
        if self._file is None:
            yield from self._pieces
            return
        position = 0
        while data := os.pread(self._file, READ_BYTES, position):
            yield data
            position += len(data)

    def close(self) -> None:
        """Give the spill file back; the capture is empty afterwards."""
        self._pieces.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None
