"""SHA-256 of files, the name of content on the farm."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import hashlib

CHUNK_BYTES = 256 << 10
BEAT_BYTES = 32 << 20

Beat = Callable[[], None]
"""Called now and then during long work, to show that one lives."""


def no_beat() -> None:
    """For work that nobody waits for."""


def sha256() -> "hashlib._Hash":
    """An empty digest. The library is loaded with the first one: it takes longer than a small build has."""
    import hashlib

    return hashlib.sha256()


def hash_descriptor(descriptor: int, beat: Beat = no_beat) -> bytes:
    """The SHA-256 of an open file, read from its beginning."""
    digest = sha256()
    position = 0
    # A byte more than there is: a small file is then read at once, and its end seen.
    wanted = min(os.fstat(descriptor).st_size + 1, CHUNK_BYTES)
    while data := os.pread(descriptor, wanted, position):
        digest.update(data)
        position += len(data)
        if len(data) < wanted:
            break
        wanted = CHUNK_BYTES
        if position % BEAT_BYTES < CHUNK_BYTES:
            beat()
    return digest.digest()
