"""Records by key, kept on disk under a cap: what costs much to make, and may be lost at any time.

    DIRECTORY/ab/abcdef…   a record, read-only, named by its key
    DIRECTORY/new/…        being written; renamed into place when it is whole
    DIRECTORY/lock         held by whoever evicts

Any number of processes of one user may share a directory. A record appears by rename, whole or not at all, and is
verified each time it is read, so what a crash, a bad disk or a stranger's hand has changed is as if it had never been
kept. The directory may be deleted at any time.

The size on disk is kept under its cap by evicting what was used longest ago. Each process adds up what it has written,
and looks at the disk when that reaches its share of the headroom, so the cap holds without a common counter.
"""

import contextlib
import hashlib
import os
import stat
import threading
import time

from msgspec import Struct

from rakefarm import shelf

MAGIC = b"rkr1"
HEAD_BYTES = len(MAGIC) + hashlib.sha256().digest_size
EVICT_AT, EVICT_TO = 0.9, 0.8
SHARE = 0.05
"""How much of the cap all processes write before one of them looks again."""
LARGEST_BYTES = 64 << 20
"""A record is held in memory while it is written or read; what is larger is not kept."""
LARGEST_PART = 4
"""A record takes at most one part in so many of the cap."""
USED_AGAIN_S = 60.0
"""Uses within this time of the last one are not written down."""
ABANDONED_S = 3600.0


class UnsafeDirectory(Exception):
    """The directory can't be used, or others could put records there; the text says why."""


class Usage(Struct, frozen=True):
    """What a store takes on disk."""

    records: int
    size_bytes: int


class RecordStore:
    """One process's view of the records in a directory, for any thread. A key is at least 16 bytes, evenly spread."""

    def __init__(self, directory: str, size_bytes: int, writers: int = 1) -> None:
        """`writers` processes are expected to write at one time. Raises UnsafeDirectory."""
        self.directory = directory
        self.size_bytes = size_bytes
        self._root = os.fsencode(directory)
        self._share = max(1, int(size_bytes * SHARE) // writers)
        self._unseen = self._share  # the first record that is kept makes us look
        self._lock = threading.Lock()
        self._make_directory()

    def _make_directory(self) -> None:
        try:
            os.makedirs(self._root, mode=0o700, exist_ok=True)
            status = os.stat(self._root)
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise UnsafeDirectory(f"{self.directory}: others can write there, so nothing in it could be believed")
            os.makedirs(self._root + b"/new", mode=0o700, exist_ok=True)
        except OSError as error:
            raise UnsafeDirectory(f"{self.directory}: {error.strerror}") from error

    def _path(self, key: bytes) -> bytes:
        return shelf.path_of(self._root, key)

    # --- one record -------------------------------------------------------------------------------------

    def has(self, key: bytes) -> bool:
        """Whether there is a record of this key now, as far as a look tells."""
        return os.path.exists(self._path(key))

    def get(self, key: bytes) -> bytes | None:
        """The record of this key; None when there is none, or it is damaged (it is then removed)."""
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
            data = _read(descriptor, status.st_size) if status.st_size <= LARGEST_BYTES + HEAD_BYTES else b""
        except OSError:
            data = b""
        finally:
            os.close(descriptor)
        if data[:HEAD_BYTES] != _head(key, memoryview(data)[HEAD_BYTES:]):
            with contextlib.suppress(OSError):
                os.unlink(path)
            return None
        if time.time() - status.st_mtime > USED_AGAIN_S:
            with contextlib.suppress(OSError):
                os.utime(path)
        return data[HEAD_BYTES:]

    def put(self, key: bytes, data: bytes) -> bool:
        """Keep a record, instead of an older one of this key; False when it can't be: it is too large, or the disk
        does not take it."""
        size = len(data) + HEAD_BYTES
        if size > self.size_bytes // LARGEST_PART or len(data) > LARGEST_BYTES:
            return False
        try:
            self._write(key, data)
        except OSError:
            return False
        with self._lock:
            self._unseen += size
            due = self._unseen >= self._share
            if due:
                self._unseen = 0
        if due:
            self.evict()
        return True

    def _write(self, key: bytes, data: bytes) -> None:
        name = b"%b/new/%b" % (self._root, os.urandom(12).hex().encode())
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(self._root + b"/new", mode=0o700, exist_ok=True)
            descriptor = os.open(name, flags, 0o600)
        try:
            try:
                for part in (_head(key, data), data):
                    view = memoryview(part)
                    while view:
                        view = view[os.write(descriptor, view) :]
                os.fchmod(descriptor, 0o400)
            finally:
                os.close(descriptor)
            shelf.put(name, self._path(key))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    # --- all of them ------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """What is there now."""
        found = self._scan()
        return Usage(len(found), sum([size for _, size, _ in found]))

    def clear(self) -> Usage:
        """Remove every record; answers what there was. Raises OSError for what can't be removed."""
        found = self._scan()
        for _, _, path in found:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return Usage(len(found), sum([size for _, size, _ in found]))

    def evict(self) -> None:
        """Remove what was used longest ago until the size is well below the cap. One process at a time does."""
        with shelf.evicting(self._root) as ours:
            if not ours:
                return
            shelf.sweep_new(self._root, ABANDONED_S)
            found = self._scan()
            if sum([size for _, size, _ in found]) > self.size_bytes * EVICT_AT:
                shelf.remove_oldest(found, self.size_bytes * EVICT_TO)

    def _scan(self) -> list[shelf.Found]:
        return shelf.scan(self._root, lambda status: max(status.st_size, status.st_blocks * 512))


def _head(key: bytes, data: bytes | memoryview) -> bytes:
    """What stands before the data. The digest is of the key, too: a record under another's name is not believed."""
    digest = hashlib.sha256(key)
    digest.update(data)
    return MAGIC + digest.digest()


def _read(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    while len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            break
        data += more
    return data
