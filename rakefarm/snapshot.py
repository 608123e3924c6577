"""What a command made: every regular file in its directory that is new, or whose content is not what was staged.

Time stamps don't decide: a fast command ends within the tick in which its inputs were written. A staged file whose
inode, size, mtime and ctime are as before, and whose ctime is older than the tick in which the command started, is
untouched; every other one is hashed and compared with its digest. Links, devices and pipes are not followed or sent.
"""

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import Struct

from rakefarm.beneath import open_beneath
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
    """One file to send back: relative path, the directory that it is relative to, permission bits, size in bytes,
    digest, and which file it was."""

    path: bytes
    box: bytes
    mode: int
    size: int
    sha256: bytes
    identity: tuple[int, int]


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


Admit = Callable[[int, int], None]
"""Told how many files there are so far, and of how many bytes; raises what it likes when that is too much."""


def admit_all(files: int, size: int) -> None:
    """For who sets no limit."""


def find_new(
    box: bytes,
    staged: dict[bytes, Staged],
    aliases: dict[bytes, bytes],
    started: int,
    beat: Callable[[], None],
    admit: Admit = admit_all,
    owner: int | None = None,
) -> list[Made]:
    """All new or changed files below `box`, by path. `aliases` maps a second name to its first: a file that still is
    the same file under both is told once, by its first name. `started` is `current_tick()` before the command.

    Raises UnfitOutput for a name that can't cross the wire, also when nothing is to cross one (a command means the
    same wherever it runs), for what can't be read, since its path is longer than the system takes, say, and for a file
    that has a name outside as well, or is not `owner`'s."""
    try:
        made = _find_changed(box, staged, aliases, started, beat, admit, owner)
    except OSError as error:
        raise UnfitOutput(f"what the command made can't be read: {_place(box, error)}{error.strerror}") from error
    for file in made:
        try:
            check_path(file.path)
        except UnsafePath as error:
            raise UnfitOutput(f"the command made a file that can't be returned: {error}") from error
    return sorted(made, key=lambda file: file.path)


def _place(box: bytes, error: OSError) -> str:
    if not isinstance(error.filename, str | bytes):
        return ""
    path = os.fsencode(error.filename)
    return f"{show(path.removeprefix(box + b'/'))}: "


def _find_changed(
    box: bytes,
    staged: dict[bytes, Staged],
    aliases: dict[bytes, bytes],
    started: int,
    beat: Callable[[], None],
    admit: Admit,
    owner: int | None,
) -> list[Made]:
    try:
        top = os.open(box, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []  # the command removed its own directory
    try:
        found = _walk(top)
        made: list[Made] = []
        total = 0
        first_of = {path: _identity(status) for path, status in found}
        names = Counter(first_of.values())
        for path, status in found:
            first = aliases.get(path)
            before = staged.get(first or path)
            if first is not None and before is not None and first_of.get(first) == _identity(status):
                continue
            if before and before.stamp == stamp_of(status) and before.stamp[3] < started:
                continue
            check_whose(path, status, names[_identity(status)], owner)
            total += status.st_size
            admit(len(made) + 1, total)
            file = inspect_file(top, box, path, beat)
            if file is not None and (before is None or before.sha256 != file.sha256):
                made.append(file)
        return made
    finally:
        os.close(top)


def find_declared(
    box: bytes,
    declared: Iterable[bytes],
    beat: Callable[[], None],
    admit: Admit = admit_all,
    owner: int | None = None,
) -> list[Made]:
    """Exactly the declared files. Raises MissingOutput for the first that isn't there, or is no regular file; and
    UnfitOutput as `find_new`."""
    made: list[Made] = []
    try:
        top = os.open(box, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        for path in declared:
            raise MissingOutput(path) from None
        return made
    try:
        total = 0
        for path in declared:
            try:
                descriptor, readable = _open_declared(top, path)
            except OSError:
                raise MissingOutput(path) from None
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise MissingOutput(path)
                named = status.st_nlink if status.st_nlink == 1 else count_names(top, status)
                check_whose(path, status, named, owner)
                total += status.st_size
                admit(len(made) + 1, total)
                file = _read(descriptor, box, path, beat) if readable else inspect_file(top, box, path, beat)
            finally:
                os.close(descriptor)
            if file is None:
                raise MissingOutput(path)
            made.append(file)
        return made
    finally:
        os.close(top)


def _open_declared(top: int, path: bytes) -> tuple[int, bool]:
    """Open one to look at it, and whether it can be read, too: the command may have taken its own permission away."""
    try:
        return open_beneath(top, path, os.O_RDONLY | os.O_NONBLOCK), True
    except PermissionError:
        return open_beneath(top, path, os.O_PATH), False


def open_made(file: Made) -> int:
    """A descriptor of the file's content; raises OSError when another file stands there by now."""
    top = os.open(file.box, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        descriptor = open_beneath(top, file.path, os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(top)
    if _identity(os.fstat(descriptor)) != file.identity:
        os.close(descriptor)
        raise OSError(errno.ESTALE, "the file was replaced while it was returned", file.path)
    return descriptor


def check_whose(path: bytes, status: os.stat_result, named: int, owner: int | None) -> None:
    """Raises UnfitOutput when a file, which has so many names in its box, has others outside, or isn't `owner`'s."""
    if status.st_nlink > named:
        raise UnfitOutput(f"{show(path)} can't be returned: it is a hard link to a file outside the action's directory")
    if owner is not None and status.st_uid != owner:
        raise UnfitOutput(f"{show(path)} can't be returned: it is another user's")


def count_names(top: int, status: os.stat_result) -> int:
    """How many names below the open directory `top` a file has."""
    return sum([_identity(other) == _identity(status) for _, other in _walk(top)])


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _walk(top: int) -> list[tuple[bytes, os.stat_result]]:
    """Every regular file below the open directory `top`: its relative path, and its status."""
    found = []
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        here = _open_directory(top, directory) if directory else os.dup(top)
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    path = directory + b"/" + name if directory else name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        found.append((path, entry.stat(follow_symlinks=False)))
        finally:
            os.close(here)
    return found


def _open_directory(top: int, path: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return open_beneath(top, path, flags)
    except PermissionError:  # the command took its own permission away; the files are its output all the same
        _permit(top, path, 0o700)
        return open_beneath(top, path, flags)


def _permit(top: int, path: bytes, mode: int) -> None:
    handle = open_beneath(top, path, os.O_PATH)
    try:
        os.chmod(f"/proc/self/fd/{handle}", mode)
    finally:
        os.close(handle)


def inspect_file(top: int, box: bytes, path: bytes, beat: Callable[[], None]) -> Made | None:
    """The file as it is, or None when it is no regular file."""
    flags = os.O_RDONLY | os.O_NONBLOCK
    try:
        try:
            descriptor = open_beneath(top, path, flags)
        except PermissionError:
            _permit(top, path, 0o600)
            descriptor = open_beneath(top, path, flags)
    except OSError:
        return None
    try:
        return _read(descriptor, box, path, beat)
    finally:
        os.close(descriptor)


def _read(descriptor: int, box: bytes, path: bytes, beat: Callable[[], None]) -> Made | None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    digest = hash_descriptor(descriptor, beat)
    size = os.fstat(descriptor).st_size
    return Made(path, box, stat.S_IMODE(status.st_mode) & 0o777, size, digest, _identity(status))
