"""Gives the files of one action their names: every one of them, or none as far as the file system allows.

Every name is looked at before the first is given, so that what stands in the way is found while nothing has happened.
When one fails all the same, what was there before is put back: an old file has kept a second name for as long as others
could still fail, and what is new is removed, the directories made for it too. A name that exists is replaced by rename.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from msgspec import Struct


class OutputError(Exception):
    """An output can't be written here; the text names it and says why."""


class Arrived(Struct):
    """One output: unnamed, or with the `name` that it has until it is installed at `path`."""

    path: bytes
    executable: bool
    descriptor: int
    name: bytes | None
    size: int


class _Step(Struct):
    """One name that is being given; `aside` is the old file's second name, `replaces` whether there was one."""

    file: Arrived
    replaces: bool
    aside: bytes | None = None


class Installation:
    """Of all files of one action."""

    def __init__(self, files: Sequence[Arrived]) -> None:
        self._files = files
        self._steps: list[_Step] = []
        self._directories: list[bytes] = []  # that we made, in this order

    def install(self, umask: int) -> None:
        """Raises OutputError; nothing is installed then."""
        self._check()
        try:
            for file in self._files:
                with _told(file):
                    self._make_directories(os.path.dirname(file.path))
                    self._install(file, umask)
        except BaseException:
            self._undo()
            raise
        for step in self._steps:
            if step.aside is not None:
                with contextlib.suppress(OSError):
                    os.unlink(step.aside)

    # --- before -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Raises OutputError for what would fail, as far as it can be seen."""
        top = os.getcwdb()
        directories: set[bytes] = set()
        for file in self._files:
            parent = os.path.dirname(file.path)
            if parent and parent not in directories:
                with _told(file):
                    _check_parent(file, parent, top)
                while parent:
                    directories.add(parent)
                    parent = os.path.dirname(parent)
        for file in self._files:
            with _told(file):
                if file.path in directories or _is_directory(file.path):
                    raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))

    # --- one after the other ----------------------------------------------------------------------------

    def _make_directories(self, path: bytes) -> None:
        if not path or os.path.isdir(path):
            return
        self._make_directories(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):  # another action has just made it; if it is a file, we fail next
            os.mkdir(path)
            self._directories.append(path)

    def _install(self, file: Arrived, umask: int) -> None:
        os.fchmod(file.descriptor, (0o777 if file.executable else 0o666) & ~umask)
        step = _Step(file, os.path.lexists(file.path))
        self._steps.append(step)
        # The last one replaces its name or fails: nothing after it can make us want the old file back.
        if step.replaces and file is not self._files[-1]:
            aside = _beside(file, b"-old")
            # A file system without hard links, or a file that isn't ours to link: it can't be put back.
            with contextlib.suppress(OSError):
                os.link(file.path, aside, follow_symlinks=False)
                step.aside = aside
        if file.name is None:
            link_unnamed(file.descriptor, file.path, _beside(file))
        else:
            os.replace(file.name, file.path)
            file.name = None

    # --- back -------------------------------------------------------------------------------------------

    def _undo(self) -> None:
        for step in reversed(self._steps):
            with contextlib.suppress(OSError):
                # Another action may have put its own there meanwhile; that is not ours to undo.
                if os.path.samestat(os.lstat(step.file.path), os.fstat(step.file.descriptor)):
                    if step.aside is not None:
                        os.replace(step.aside, step.file.path)
                    elif not step.replaces:
                        os.unlink(step.file.path)
            if step.aside is not None:
                with contextlib.suppress(OSError):
                    os.unlink(step.aside)
        for path in reversed(self._directories):
            with contextlib.suppress(OSError):
                os.rmdir(path)


@contextlib.contextmanager
def _told(file: Arrived) -> Iterator[None]:
    """What the system refuses becomes a line about this file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"can't write {os.fsdecode(file.path)}: {error.strerror}") from error


def _check_parent(file: Arrived, parent: bytes, top: bytes) -> None:
    # Before anything is made: realpath follows the links that are there, and keeps the rest of the name.
    if top != b"/" and os.path.commonpath([top, os.path.realpath(parent)]) != top:
        raise OutputError(f"can't write {os.fsdecode(file.path)}: a link leads out of the working directory")
    while parent and not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if parent and not os.path.isdir(parent):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _beside(file: Arrived, ending: bytes = b"") -> bytes:
    """A name in the same directory that nobody else uses."""
    name = b".rakefarm-%d-%d%s" % (os.getpid(), file.descriptor, ending)
    return os.path.join(os.path.dirname(file.path), name)


def link_unnamed(descriptor: int, path: bytes, beside: bytes) -> None:
    """Name an unnamed file (O_TMPFILE): at once where the name is free, else `beside` it and then over it."""
    source = b"/proc/self/fd/%d" % descriptor
    try:
        # The directory is not used for an absolute name, but with one given Python calls linkat(2), which follows.
        os.link(source, path, src_dir_fd=descriptor, follow_symlinks=True)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        os.link(source, beside, src_dir_fd=descriptor, follow_symlinks=True)
        try:
            os.replace(beside, path)
        except OSError:
            os.unlink(beside)
            raise


def current_umask() -> int:
    """The process's file mode creation mask, from the kernel (reading it with umask(2) would change it)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022
