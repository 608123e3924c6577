"""An action's required files: found, named as they will be staged, and hashed once.

Staging: a required `a/b.c` is placed at `a/b.c`, and also as `b.c` at the top unless another required file has
that name, since half of the Rakefiles in the world expect one and half the other. `./a` is `a`. Absolute names, and
names that climb out with `..`, are staged under their base name.
"""

import errno
import glob
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from rakefarm.digest import hash_descriptor
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.messages import Input
from rakefarm.wire.paths import check_path, check_paths

RACY_NS = 50_000_000
"""A file changed within this time of its hashing may change again within the same time stamp; it is not remembered."""


class InputError(Exception):
    """A required file can't be used; the text names it and says why."""


class Required(Struct, frozen=True):
    """A required file: where it is here, and where it goes: `path`, and `alias` (or empty)."""

    source: bytes
    path: bytes
    alias: bytes


class Manifest(Struct, frozen=True):
    """An action's inputs as the server is told of them, and where each is here, in the same order."""

    entries: tuple[Input, ...]
    sources: tuple[bytes, ...]

    @property
    def total_bytes(self) -> int:
        """The size of all inputs together."""
        return sum([entry.size for entry in self.entries])

    def digests(self) -> dict[bytes, int]:
        """The size of each content, by its digest."""
        return {entry.sha256: entry.size for entry in self.entries}


def staged_path(name: bytes) -> bytes:
    """Where a required name goes in the action's directory."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in parts:
        parts = parts[-1:]
        if parts == [b".."]:
            raise InputError(f"the required name {os.fsdecode(name)} is a directory outside of this one")
    return b"/".join(parts)


def expand(requires: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """Each required file's name here, and its place: patterns and directories replaced by the files they mean.

    Raises InputError for a name that doesn't exist, a pattern without a match, or what is neither file nor directory.
    """
    files: dict[bytes, bytes] = {}
    for name in requires:
        matches: Iterable[str] = [name]
        if glob.has_magic(name) and not os.path.lexists(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise InputError(f"missing required file: nothing matches {name}")
        for match in matches:
            for source, place in _files_of(os.fsencode(match)):
                files.setdefault(source, place)
    return list(files.items())


def _files_of(source: bytes) -> Iterable[tuple[bytes, bytes]]:
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        reason = "" if error.errno == errno.ENOENT else f": {error.strerror}"
        raise InputError(f"missing required file {os.fsdecode(source)}{reason}") from error
    if stat.S_ISREG(mode):
        yield source, staged_path(source)
    elif stat.S_ISDIR(mode):
        top = staged_path(source)
        for directory, names, leaves in os.walk(source):
            names.sort()
            for leaf in sorted(leaves):
                inner = os.path.relpath(os.path.join(directory, leaf), source)
                yield os.path.join(directory, leaf), top + b"/" + inner if top else inner
    else:
        raise InputError(f"the required {os.fsdecode(source)} is neither a file nor a directory")


def arrange(files: Sequence[tuple[bytes, bytes]]) -> list[Required]:
    """Give each file its second name where one is free. Raises InputError when two files want one place."""
    paths = {place: source for source, place in files}
    if len(paths) < len(files):
        # ./a.c and a.c are one file, however often it is named.
        files = list({(os.path.realpath(source), place): (source, place) for source, place in files}.values())
    if len(paths) < len(files):
        (place, _), *_ = Counter(place for _, place in files).most_common(1)
        raise InputError(f"two required files would both be staged as {os.fsdecode(place)}")
    taken = set(paths) | {path.split(b"/")[0] for path in paths}
    bases = Counter(os.path.basename(path) for path in paths)
    arranged = []
    for source, place in files:
        base = os.path.basename(place)
        free = b"/" in place and base not in taken and bases[base] == 1
        arranged.append(Required(source, place, base if free else b""))
    try:
        check_paths([r.path for r in arranged] + [r.alias for r in arranged if r.alias])
    except UnsafePath as error:
        raise InputError(f"a required file can't be sent: {error.text}") from error
    return arranged


def declared_paths(names: Sequence[str]) -> tuple[bytes, ...]:
    """The paths of a `produces` line, each once, `./` taken off. Raises InputError for one that leads out of the
    action's directory: what is there is not ours to bring home."""
    paths = []
    for name in names:
        path = b"/".join(part for part in os.fsencode(name).split(b"/") if part != b".")
        try:
            check_path(path)
        except UnsafePath as error:
            raise InputError(f"a declared output can't come back: {error.text}") from error
        paths.append(path)
    return tuple(dict.fromkeys(paths))


class Measured(Struct, frozen=True):
    """What a look at an action's required names tells: the first that isn't there now, or None; and each file that is
    named outright with its size in bytes."""

    missing: str | None
    sizes: tuple[tuple[str, int], ...]

    @property
    def total_bytes(self) -> int:
        """The size of all of them together."""
        return sum([size for _, size in self.sizes])


def measure(requires: Sequence[str]) -> Measured:
    """Only looks; nothing is read, and what patterns and directories stand for is not counted."""
    sizes = []
    for name in requires:
        try:
            status = os.stat(name)
        except (OSError, ValueError):
            if not (glob.has_magic(name) and glob.glob(name, recursive=True)):
                return Measured(name, ())
            continue
        if stat.S_ISREG(status.st_mode):
            sizes.append((name, status.st_size))
    return Measured(None, tuple(sizes))


_EMPTY = Manifest((), ())


class Hasher:
    """Digests of files, remembered for as long as the file is the same. For any thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[tuple[int, ...], bytes]] = {}
        self._lock = threading.Lock()

    def manifest(self, requires: Sequence[str]) -> Manifest:
        """The manifest of these required names. Raises InputError."""
        if not requires:
            return _EMPTY
        required = arrange(expand(requires))
        entries = tuple([self._entry(file) for file in required])
        return Manifest(entries, tuple([file.source for file in required]))

    def _entry(self, file: Required) -> Input:
        try:
            descriptor = os.open(file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise InputError(f"can't read required file {os.fsdecode(file.source)}: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"the required {os.fsdecode(file.source)} is not a regular file")
            digest = self._digest(file.source, descriptor, status)
        finally:
            os.close(descriptor)
        mode = stat.S_IMODE(status.st_mode) & 0o777
        return Input(file.path, file.alias, mode, max(0, status.st_mtime_ns), status.st_size, digest)

    def _digest(self, source: bytes, descriptor: int, status: os.stat_result) -> bytes:
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        with self._lock:
            known = self._known.get(source)
        if known is not None and known[0] == identity:
            return known[1]
        began = time.time_ns()
        digest = hash_descriptor(descriptor)
        if began - status.st_ctime_ns > RACY_NS:
            with self._lock:
                self._known[source] = (identity, digest)
        return digest
