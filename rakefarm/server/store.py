"""The content store: files by their SHA-256, kept from build to build, so that a file is sent once.

    DIRECTORY/ab/abcdef…   a blob, read-only, named by its digest
    DIRECTORY/new/…        being written; renamed into place when its digest is right
    DIRECTORY/lock         held by whoever evicts
    DIRECTORY/caps/…       one a worker, locked while it lives, named by its server's cap

Any number of workers and servers may share one directory: blobs appear by rename, whole or not at all, and a blob
that is gone is simply not there, so the store may be deleted at any time. A blob is verified on arrival and
once more by each worker that first uses it (a crash or a bad disk may have changed it since). Commands get copies,
never links: one that writes in place must not change the store.

The size is kept under its cap by evicting what was used longest ago. Workers add up what they have written and look
at the disk when that reaches their share of the headroom, so the cap holds without a common counter. Where servers with
different caps use one directory at a time, the largest counts: a small one must not empty what others rely on.
"""

import contextlib
import errno
import fcntl
import os
import tempfile
import time
import weakref
from collections.abc import Callable

from rakefarm import shelf
from rakefarm.digest import CHUNK_BYTES, Beat, hash_descriptor, no_beat

SMALL_BYTES = 1 << 20
EVICT_TO = 0.7
EVICT_AT = 0.85
ABANDONED_S = 86_400.0
USED_AGAIN_S = 60.0
"""Uses within this time of the last one are not written down."""


def keep(descriptor: int) -> None:
    """A file stays its maker's."""


class Store:
    """One worker's view of the store. A `size_bytes` of 0 keeps nothing."""

    def __init__(self, directory: str, size_bytes: int, workers: int = 1) -> None:
        self._directory = os.fsencode(directory)
        self._size = size_bytes
        self._unseen = 0
        # All workers together write at most this much before one of them looks.
        self._share = max(1, int(size_bytes * (1 - EVICT_AT)) // max(1, workers))
        self._verified: dict[bytes, tuple[int, int, int]] = {}
        if size_bytes:
            self._make_directories()
            self._tell_cap()
            self.evict()

    def _make_directories(self) -> None:
        os.makedirs(self._directory + b"/new", mode=0o700, exist_ok=True)

    def _tell_cap(self) -> None:
        """Have our cap count for as long as we live; a file system without locks has each of us go by its own."""
        caps = self._directory + b"/caps"
        with contextlib.suppress(OSError):
            os.makedirs(caps, mode=0o700, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._directory + b"/new")
            weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # By rename, so that nobody finds it unlocked and takes us for dead.
            os.rename(name, b"%b/%d-%b" % (caps, self._size, os.path.basename(name)))

    def _largest_cap(self) -> int:
        """The largest cap of all who use the directory now; what the dead have left is removed."""
        largest = self._size
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._directory + b"/caps"):
                number = entry.name.partition(b"-")[0]
                with contextlib.suppress(OSError):
                    if not number.isdigit() or len(number) > 20 or _is_unlocked(entry.path):
                        os.unlink(entry.path)
                    else:
                        largest = max(largest, int(number))
        return largest

    def _path(self, digest: bytes) -> bytes:
        return shelf.path_of(self._directory, digest)

    def has(self, digest: bytes, size: int) -> bool:
        """Whether a blob of this digest and size is there now; it may be gone a moment later."""
        try:
            return os.stat(self._path(digest)).st_size == size
        except OSError:
            return False

    def copy_to(
        self,
        digest: bytes,
        size: int,
        target: bytes,
        mode: int,
        own: Callable[[int], None] = keep,
        beat: Beat = no_beat,
    ) -> bool:
        """Copy a blob to the new file `target`; False when it isn't there, or is damaged (it is then removed).

        `own` is given the new file's descriptor, to give it to somebody; `beat` is called now and then during a long
        copy. Raises OSError when `target` can't be written.
        """
        blob = self.open(digest, size, beat)
        if blob is None:
            return False
        try:
            _copy(blob, target, size, mode, own, beat)
        finally:
            os.close(blob)
        return True

    def open(self, digest: bytes, size: int, beat: Beat = no_beat) -> int | None:
        """A blob, open for reading, which the caller closes; None when it isn't there, or is damaged (it is then
        removed)."""
        path = self._path(digest)
        try:
            blob = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            status = os.fstat(blob)
            identity = (status.st_ino, status.st_ctime_ns, size)
            fits = status.st_size == size
            if fits and self._verified.get(digest) != identity:
                # Noting its use changes what it is known by, also to other workers.
                if time.time() - status.st_mtime > USED_AGAIN_S:
                    with contextlib.suppress(OSError):
                        os.utime(blob)
                    status = os.fstat(blob)
                fits = self._verify(blob, path, digest, beat)
                self._verified[digest] = (status.st_ino, status.st_ctime_ns, size)
        except BaseException:
            os.close(blob)
            raise
        if not fits:
            self._verified.pop(digest, None)
            os.close(blob)
            return None
        return blob

    def read(self, digest: bytes, size: int) -> bytes | None:
        """A blob's content, which must be small; None when it isn't there, or is damaged."""
        blob = self.open(digest, size)
        if blob is None:
            return None
        try:
            return os.pread(blob, size, 0)
        finally:
            os.close(blob)

    def _verify(self, blob: int, path: bytes, digest: bytes, beat: Beat) -> bool:
        if hash_descriptor(blob, beat) == digest:
            return True
        with contextlib.suppress(OSError):
            os.unlink(path)
        return False

    def add(self, digest: bytes, source: bytes, size: int, beat: Beat = no_beat) -> None:
        """Keep a copy of `source`, whose digest the caller has computed. What can't be kept (the disk is full, say) is
        only sent again."""
        if not self._size or size > self._size // 4 or self.has(digest, size):
            return
        with contextlib.suppress(OSError):
            self._write(digest, source, size, beat)

    def _write(self, digest: bytes, source: bytes, size: int, beat: Beat) -> None:
        name = b"%b/new/%b" % (self._directory, os.urandom(12).hex().encode())
        file = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                _copy(file, name, size, 0o400, keep, beat)
            except FileNotFoundError:
                self._make_directories()
                _copy(file, name, size, 0o400, keep, beat)
        finally:
            os.close(file)
        try:
            shelf.put(name, self._path(digest))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        self._unseen += size
        if self._unseen >= self._share:
            self.evict()

    def evict(self) -> None:
        """Remove what was used longest ago until the store is well below its cap. One process at a time does."""
        self._unseen = 0
        with shelf.evicting(self._directory) as ours:
            if not ours:
                return
            shelf.sweep_new(self._directory, ABANDONED_S)
            found, cap = shelf.scan(self._directory, lambda status: status.st_size), self._largest_cap()
            if sum([size for _, size, _ in found]) > cap * EVICT_AT - self._share:
                shelf.remove_oldest(found, cap * EVICT_TO)


def _is_unlocked(path: bytes) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _copy(source: int, target: bytes, size: int, mode: int, own: Callable[[int], None], beat: Beat) -> None:
    """Copy an open file to the new file `target`, within the kernel."""
    copy = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        position = 0
        while position < size:
            if size <= CHUNK_BYTES:
                sent = os.write(copy, os.pread(source, size - position, position))
            else:
                sent = os.sendfile(copy, source, position, min(size - position, 8 << 20))
            if not sent:
                raise OSError(errno.EIO, "the file became shorter while it was copied", os.fsdecode(target))
            position += sent
            beat()
        own(copy)
        os.fchmod(copy, mode)
    except BaseException:
        os.unlink(target)
        raise
    finally:
        os.close(copy)
