"""Files that come back: confined to the working directory, whole or not at all.

Each is written to an unnamed file (O_TMPFILE), which vanishes with us however we end, and gets its name only when
everything of its action has arrived and every digest is right (see `install`).
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable

from rakefarm.client.install import Arrived, Installation, OutputError, current_umask
from rakefarm.digest import sha256
from rakefarm.open_files import allow_more
from rakefarm.wire.errors import Malformed, UnsafePath
from rakefarm.wire.messages import Output
from rakefarm.wire.paths import check_path, show

__all__ = ["Claims", "Incoming", "OutputError", "current_umask"]

EXECUTABLE = 0o100


class Incoming:
    """The outputs of one action attempt. Close it in the end, whatever happened; what isn't installed is gone then."""

    def __init__(self) -> None:
        self._files: list[Arrived] = []

    def receive(self, output: Output, receive_body: Callable[[Callable[[bytes], object]], None]) -> None:
        """Take one output's body. Raises UnsafePath or Malformed (the server is not to be believed), OutputError."""
        check_path(output.path)
        if any(file.path == output.path for file in self._files):
            raise UnsafePath(f"the output {show(output.path)} came twice")
        file = self._open(output.path, bool(output.mode & EXECUTABLE))
        digest = sha256()

        def sink(data: bytes) -> None:
            digest.update(data)
            file.size += len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(file.descriptor, view) :]

        try:
            receive_body(sink)
        except OSError as error:
            raise OutputError(f"can't write {os.fsdecode(output.path)}: {error.strerror}") from error
        if digest.digest() != output.sha256:
            raise Malformed(f"the content of the output {show(output.path)} is not what its digest says")

    def take(self, path: bytes, executable: bool, content: bytes) -> None:
        """An output that is here already, of an earlier run. Raises OutputError."""
        file = self._open(path, executable)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(file.descriptor, view) :]
        except OSError as error:
            raise OutputError(f"can't write {os.fsdecode(path)}: {error.strerror}") from error
        file.size = len(content)

    def _open(self, path: bytes, executable: bool) -> Arrived:
        directory = os.path.dirname(path) or b"."
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory) or b"."
        try:
            try:
                descriptor, name = _make_unnamed(directory)
            except OSError as error:
                # Only now: what we start would have the same limit, and not every program is at ease with a high one.
                if error.errno != errno.EMFILE or not allow_more():
                    raise
                descriptor, name = _make_unnamed(directory)
        except OSError as error:
            place = os.path.join(os.getcwdb(), path)
            raise OutputError(f"can't write {os.fsdecode(place)}: {error.strerror}") from error
        file = Arrived(path, executable, descriptor, name, 0)
        self._files.append(file)
        return file

    def descriptors(self) -> dict[bytes, int]:
        """An open file, for reading and writing, of each that has arrived, by its path."""
        return {file.path: file.descriptor for file in self._files}

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of what has arrived."""
        return tuple(os.fsdecode(file.path) for file in self._files)

    def install(self, skip: frozenset[str] = frozenset(), umask: int | None = None) -> None:
        """Give every file its name, except those in `skip`; all of them or, with an OutputError, none as far as the
        file system allows. Who installs often passes the `umask`, which takes a moment to find out."""
        files = [file for file in self._files if os.fsdecode(file.path) not in skip]
        if files:
            Installation(files).install(current_umask() if umask is None else umask)

    def close(self) -> None:
        """Let go of everything; unnamed files vanish."""
        for file in self._files:
            os.close(file.descriptor)
            if file.name is not None:
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
        self._files.clear()


def _make_unnamed(directory: bytes) -> tuple[int, bytes | None]:
    """A new file in the directory, and its name, where the file system has none without."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
        import tempfile

        return tempfile.mkstemp(prefix=b".rakefarm-", dir=directory)


class Claims:
    """Which action of a set returned which path: the last in file order wins. For any thread."""

    def __init__(self) -> None:
        self._owners: dict[str, int] = {}
        self._lock = threading.Lock()

    def claim(self, action: int, paths: tuple[str, ...]) -> tuple[frozenset[str], list[str]]:
        """The paths that `action` must not install, as a later action has, and all that somebody else had, too."""
        lost, shared = [], []
        with self._lock:
            for path in paths:
                owner = self._owners.get(path)
                if owner is not None and owner != action:
                    shared.append(path)
                if owner is not None and owner > action:
                    lost.append(path)
                else:
                    self._owners[path] = action
        return frozenset(lost), shared

    def clear(self) -> None:
        """A new set begins."""
        with self._lock:
            self._owners.clear()
