"""What a command made: every regular file in its directory that is new, or whose content is not what was staged.

Time stamps don't decide: a fast command ends within the tick in which its inputs were written. A staged file whose
inode, size, mtime and ctime are as before, and whose ctime is older than the tick in which the command started, is
untouched; every other one is hashed and compared with its digest. Links, devices and pipes are not followed or sent.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable

from msgspec import Struct

from rakefarm.digest import hash_descriptor
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.paths import check_path, show

CLOCK_REALTIME_COARSE = 5  # linux/time.h; the time module has no name for it

Stamp = tuple[int, int, int, int]


class Staged(Struct, frozen=True):
    """An input as it was placed: its digest, and what the file system said of it then."""

    sha256: bytes
    stamp: Stamp


class Made(Struct, frozen=True):
    """One file to send back: relative path, full path, permission bits, size in bytes and digest."""

    path: bytes
    source: bytes
    mode: int
    size: int
    sha256: bytes


class MissingOutput(Exception):
    """A declared output is not there, or is no regular file."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


class UnfitOutput(Exception):
    """The command made what can't be brought home: the text names the file and says why."""


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes when a file's content does."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def current_tick() -> int:
    """The time the kernel stamps files with now, in nanoseconds since 1970."""
    return time.clock_gettime_ns(CLOCK_REALTIME_COARSE)


def find_new(
    box: bytes,
    staged: dict[bytes, Staged],
    aliases: dict[bytes, bytes],
    started: int,
    beat: Callable[[], None],
) -> list[Made]:
    """All new or changed files below `box`, by path. `aliases` maps a second name to its first: a file that still is
    the same file under both is told once, by its first name. `started` is `current_tick()` before the command.

    Raises UnfitOutput for a name that can't cross the wire, also when nothing is to cross one (a command means the
    same wherever it runs), and for what can't be read, since its path is longer than the system takes, say."""
    try:
        made = _find_changed(box, staged, aliases, started, beat)
    except OSError as error:
        raise UnfitOutput(f"what the command made can't be read: {_place(box, error)}{error.strerror}") from error
    for file in made:
        try:
            check_path(file.path)
        except UnsafePath as error:
            raise UnfitOutput(f"the command made a file that can't be returned: {error}") from error
    return sorted(made, key=lambda file: file.path)


def _place(box: bytes, error: OSError) -> str:
    if error.filename is None:
        return ""
    path = os.fsencode(error.filename)
    return f"{show(path.removeprefix(box + b'/'))}: "


def _find_changed(
    box: bytes,
    staged: dict[bytes, Staged],
    aliases: dict[bytes, bytes],
    started: int,
    beat: Callable[[], None],
) -> list[Made]:
    made = []
    for path, source, status in _walk(box):
        first = aliases.get(path)
        before = staged.get(first or path)
        if first is not None and before is not None and _same_file(box + b"/" + first, status):
            continue
        if before and before.stamp == stamp_of(status) and before.stamp[3] < started:
            continue
        file = _inspect(path, source, beat)
        if file is not None and (before is None or before.sha256 != file.sha256):
            made.append(file)
    return made


def find_declared(box: bytes, declared: Iterable[bytes], beat: Callable[[], None]) -> list[Made]:
    """Exactly the declared files. Raises MissingOutput for the first that isn't there."""
    made = []
    for path in declared:
        file = _inspect(path, box + b"/" + path, beat) if _inside(box, path) else None
        if file is None:
            raise MissingOutput(path)
        made.append(file)
    return made


def _inside(box: bytes, path: bytes) -> bool:
    """Whether no directory on the way to `path` is a link, which might lead out."""
    parts = path.split(b"/")[:-1]
    for count in range(1, len(parts) + 1):
        if os.path.islink(box + b"/" + b"/".join(parts[:count])):
            return False
    return True


def _same_file(first: bytes, status: os.stat_result) -> bool:
    try:
        other = os.lstat(first)
    except OSError:
        return False
    return (other.st_ino, other.st_dev) == (status.st_ino, status.st_dev)


def _walk(box: bytes) -> Iterable[tuple[bytes, bytes, os.stat_result]]:
    """Every regular file below `box`: its relative path, full path and status."""
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        source = box + b"/" + directory if directory else box
        try:
            entries = list(os.scandir(source))
        except FileNotFoundError:
            continue  # the command removed its own directory
        except PermissionError:
            os.chmod(source, 0o700)  # the command took its own permission away; the files are its output all the same
            entries = list(os.scandir(source))
        for entry in entries:
            path = directory + b"/" + entry.name if directory else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path, entry.path, entry.stat(follow_symlinks=False)


def _inspect(path: bytes, source: bytes, beat: Callable[[], None]) -> Made | None:
    """The file as it is, or None when it is no regular file."""
    try:
        status = os.lstat(source)
        if not stat.S_ISREG(status.st_mode):
            return None
        if not status.st_mode & stat.S_IRUSR:
            os.chmod(source, stat.S_IMODE(status.st_mode) | stat.S_IRUSR)
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        digest = hash_descriptor(descriptor, beat)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    return Made(path, source, stat.S_IMODE(status.st_mode) & 0o777, size, digest)
