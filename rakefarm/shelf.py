"""A directory of files by key, which any number of processes fill and empty: what the content store and the results
that are kept have in common.

    DIRECTORY/ab/abcdef…   a file, named by its key in hexadecimal
    DIRECTORY/new/…        being written; renamed into place when it is whole
    DIRECTORY/lock         held by whoever evicts

A file appears by rename, whole or not at all, and one that is gone is simply not there: the directory may be deleted at
any time. What was used longest ago, by its modification time, goes first.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence

Found = tuple[float, int, bytes]
"""When a file was used last (seconds), its size (bytes), and its path."""


def path_of(directory: bytes, key: bytes) -> bytes:
    """Where the file of this key is, if it is there."""
    name = key.hex().encode()
    return b"%b/%b/%b" % (directory, name[:2], name)


def put(name: bytes, target: bytes) -> None:
    """Give a file that is whole its place. Raises OSError."""
    try:
        os.rename(name, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        os.rename(name, target)


def sweep_new(directory: bytes, abandoned_s: float) -> None:
    """Remove what was left half-written: nobody writes for so long."""
    long_ago = time.time() - abandoned_s
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory + b"/new"):
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < long_ago:
                    os.unlink(entry.path)


def scan(directory: bytes, size_of: Callable[[os.stat_result], int]) -> list[Found]:
    """All files that are in their places."""
    found = []
    with contextlib.suppress(OSError):
        for shard in os.scandir(directory):
            if len(shard.name) != 2 or not shard.is_dir(follow_symlinks=False):
                continue
            with contextlib.suppress(OSError):
                for entry in os.scandir(shard.path):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, size_of(status), entry.path))
    return found


def remove_oldest(found: Sequence[Found], most_bytes: float) -> None:
    """Until what is left takes at most so much."""
    total = sum([size for _, size, _ in found])
    for _, size, path in sorted(found):
        if total <= most_bytes:
            return
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError:
            continue
        total -= size


@contextlib.contextmanager
def evicting(directory: bytes) -> Iterator[bool]:
    """Whether it is ours to evict: one process at a time does."""
    try:
        lock = os.open(directory + b"/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(lock)
