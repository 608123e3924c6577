"""What is known of each file that compiles read: its digest and directives, for as long as it is the same."""

import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Sequence

from msgspec import Struct

from rakefarm.cc.directives import Directives, find_definitions, find_directives
from rakefarm.cc.reasons import Local, Reason

RACY_NS = 50_000_000
"""A file changed within this time of being read may change again within the same time stamp; it is not remembered."""
LARGEST_BYTES = 64 << 20
"""A source beyond this is no source that anybody wrote; it is compiled here."""

NAMES_A_LOOK = 4
"""So many names of a directory are listed in the time that a look at one takes."""

Identity = tuple[int, int, int, int, int]


class Facts(Struct, frozen=True):
    """One file as it was read. `mode` are its permission bits, times in nanoseconds since 1970, sizes in bytes."""

    identity: Identity
    mode: int
    mtime_ns: int
    size: int
    sha256: bytes
    directives: Directives


class FileCache:
    """For any thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, Facts] = {}
        self._definitions: dict[tuple[bytes, bytes], tuple[bytes, list[bytes]]] = {}
        self._listings: dict[bytes, tuple[Identity, frozenset[bytes]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def look(self, path: bytes) -> Facts | None:
        """The facts of the regular file `path` as it is now; None when there is none, or a directory. Raises Local for
        one that can't be read."""
        try:
            status = os.stat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise Local(Reason.UNREADABLE, f"{os.fsdecode(path)}: {error.strerror}") from error
        known = self._known.get(path)
        if known is not None and known.identity == _identity(status):
            return known
        return self._read(path, status)

    def definitions(self, path: bytes, facts: Facts, name: bytes) -> list[bytes]:
        """What a file that was looked at defines the macro `name` as. Raises Local."""
        known = self._definitions.get((path, name))
        if known is not None and known[0] == facts.sha256:
            return known[1]
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError as error:
            raise Local(Reason.UNREADABLE, f"{os.fsdecode(path)}: {error.strerror}") from error
        found = find_definitions(text, name)
        if hashlib.sha256(text).digest() == facts.sha256:
            self._definitions[(path, name)] = (facts.sha256, found)
        return found

    def listing(self, directory: bytes) -> frozenset[bytes] | None:
        """The names in a directory, empty when there is none; None when it changes too fast, or can't be read, to be
        judged by its names."""
        try:
            status = os.stat(directory)
        except OSError:
            return frozenset()
        known = self._listings.get(directory)
        if known is not None and known[0] == _identity(status):
            return known[1]
        if time.time_ns() - status.st_ctime_ns <= RACY_NS:
            return None  # what is listed now may not be all of it, and objects are written there all the time
        try:
            names = frozenset(os.listdir(directory))
        except OSError:
            return None
        self._listings[directory] = (_identity(status), names)
        return names

    def present(self, directory: bytes, names: Sequence[bytes]) -> list[bytes]:
        """Which of these names are in a directory now."""
        try:
            status = os.stat(directory)
        except OSError:
            return []
        known = self._listings.get(directory)
        if known is None or known[0] != _identity(status):
            # Where objects are written the listing is another one each time, and long.
            if known is not None and len(names) * NAMES_A_LOOK < len(known[1]):
                return [name for name in names if os.path.lexists(directory + b"/" + name)]
            listing = self.listing(directory)
            if listing is None:
                return [name for name in names if os.path.lexists(directory + b"/" + name)]
        else:
            listing = known[1]
        return [] if listing.isdisjoint(names) else [name for name in names if name in listing]

    def _read(self, path: bytes, status: os.stat_result) -> Facts | None:
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_BYTES:
            raise Local(Reason.UNREADABLE, f"{os.fsdecode(path)}: no regular file of a usual size")
        began = time.time_ns()
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                text = file.read()
        except OSError as error:
            raise Local(Reason.UNREADABLE, f"{os.fsdecode(path)}: {error.strerror}") from error
        facts = Facts(
            _identity(status),
            stat.S_IMODE(status.st_mode) & 0o777,
            max(0, status.st_mtime_ns),
            len(text),
            hashlib.sha256(text).digest(),
            find_directives(text),
        )
        if began - status.st_ctime_ns > RACY_NS and len(text) == status.st_size:
            with self._lock:
                self._known[path] = facts
        return facts


def _identity(status: os.stat_result) -> Identity:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
