"""Directories that commands run in: one root a server, one directory a worker, and in it one an executor.

    ROOT/rakefarm-UID/SERVER/lock                      held by the listener for as long as it lives
    ROOT/rakefarm-UID/SERVER/slots/N                   see `slots`
    ROOT/rakefarm-UID/SERVER/worker-N/executor-N/box   an action's working directory: inputs, and what its command makes
    ROOT/rakefarm-UID/SERVER/worker-N/executor-N/tmp   its TMPDIR and HOME

Where executors have roots of their own, the last two may be in a file system that nobody else sees (see `isolation`). A
server of root's has the commands of each worker run as another user, who can pass through these directories and owns
what is in the last two, but only while the command runs.

A server that crashed can't tidy up; the next one to start takes the lock of every directory it finds, and where it
gets it, the owner is dead and the directory goes. ROOT is a file system in memory where that has room.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import tempfile

ROOMY_BYTES = 1 << 30
"""A file system in memory with less free than this is passed over."""
MOST_OPEN = 64
"""So many directories of an action are held open at once while they are removed; where there are more, each is looked
through."""
_PRIVATE = 0o700
_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSABLE = 0o711
"""For root's: who runs commands can pass, but not look."""


class SandboxError(Exception):
    """No directory to run commands in; the text says what was tried and what to do."""


def in_memory(path: str) -> bool:
    """Whether `path` is in a file system in memory."""
    with open("/proc/self/mountinfo", "rb") as file:
        device = os.stat(path).st_dev
        number = b"%d:%d" % (os.major(device), os.minor(device))
        return any(line.split()[2] == number and b" - tmpfs " in line for line in file)


def choose_root(configured: str, tmpdir: str) -> str:
    """Where sandboxes go: the configured place, else TMPDIR, else /dev/shm where it has room and may run programs."""
    if configured or tmpdir:
        return configured or tmpdir
    try:
        status = os.statvfs("/dev/shm")
    except OSError:
        return tempfile.gettempdir()
    usable = status.f_bavail * status.f_frsize >= ROOMY_BYTES and not status.f_flag & os.ST_NOEXEC
    if usable and os.access("/dev/shm", os.W_OK | os.X_OK):
        return "/dev/shm"
    return tempfile.gettempdir()


class ServerDirectory:
    """In the listener: the server's own directory, locked for as long as the listener lives."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        parent = os.path.join(os.path.abspath(root), f"rakefarm-{os.geteuid()}")  # executors change directory
        try:
            _make_private(parent)
            sweep(parent)
            self.path = tempfile.mkdtemp(prefix="server-", dir=parent)
            os.chmod(self.path, _PRIVATE if os.geteuid() else _PASSABLE)
            self._lock = os.open(os.path.join(self.path, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            place = error.filename or parent
            raise SandboxError(
                f"can't make a sandbox in {place}: {error.strerror}; name another place with TMPDIR"
                " or sandbox_directory"
            ) from error

    def worker_directory(self, number: int) -> str:
        """The directory of worker `number`; it may not exist yet."""
        return os.path.join(self.path, f"worker-{number}")

    def close_in_child(self) -> None:
        """In a worker: let go of the lock's descriptor, so that the lock ends with the listener."""
        os.close(self._lock)

    def remove(self) -> None:
        """Remove everything, and the parent when no other server uses it."""
        remove_tree(self.path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.path))


def _make_private(path: str) -> None:
    """Make `path` a directory of our own, that nobody else can list. A stranger's, or a link put there in wait, is
    refused."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "it is there already and not a directory of ours", path)
    os.chmod(path, _PRIVATE if os.geteuid() else _PASSABLE)


def sweep(parent: str) -> None:
    """Remove the directories of servers that are dead."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        try:
            lock = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(path)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


class WorkerSandbox:
    """In a worker: its directory, in which its executors have theirs. With `uid` commands run as that user."""

    def __init__(self, path: str, uid: int = 0) -> None:
        self.path = os.fsencode(path)
        remove_tree(path)  # what the worker before us left, if it was killed: its numbers are ours, too
        os.makedirs(path, mode=0o700, exist_ok=True)
        if uid:
            os.chown(path, 0, uid)
            os.chmod(path, 0o710)  # nosec B103 # for the one group of its commands

    def remove(self) -> None:
        """Remove the worker's directory with all that is in it."""
        remove_tree(os.fsdecode(self.path))


class ActionDirectory:
    """An action's directory in its executor's, `home`: `box` is where the command runs, `tmp` its scratch space.

    With `uid` the command runs as that user, to whom both belong between `hand_over` and `take_back`, so that nobody
    else's command can meddle while files are put there and fetched.
    """

    def __init__(self, home: bytes, uid: int = 0) -> None:
        self.box = home + b"/box"
        self.tmp = home + b"/tmp"
        self._uid = uid
        self._made: dict[bytes, None] = {}  # in this order
        self._expected: set[bytes] = set()
        os.mkdir(self.box, 0o700)
        os.mkdir(self.tmp, 0o700)

    def own(self, descriptor: int) -> None:
        """Give a file that was put in the box to who runs the command."""
        if self._uid:
            os.fchown(descriptor, self._uid, self._uid)

    def hand_over(self) -> None:
        """Everything is there, and the command may come."""
        if self._uid:
            for path in (self.box, self.tmp):
                os.chown(path, self._uid, self._uid)

    def take_back(self) -> None:
        """The command has ended. It may have taken away its own directory, or put a link there."""
        if self._uid:
            for path in (self.box, self.tmp):
                with contextlib.suppress(OSError):
                    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                    try:
                        os.fchown(handle, 0, 0)
                        os.fchmod(handle, 0o700)
                    finally:
                        os.close(handle)

    def locate(self, path: bytes) -> bytes:
        """The full path of a checked relative `path`, its directories made."""
        self.make_way(path)
        self.expect(path)
        return self.box + b"/" + path

    def make_way(self, path: bytes) -> None:
        """The directories on the way to a checked relative `path`."""
        cut = path.rfind(b"/")
        if cut > 0 and path[:cut] not in self._made:
            self._make_directories(path[:cut])

    def expect(self, path: bytes) -> None:
        """A file that `remove` will find; where it finds no other, it need not look for any."""
        directory = path.rpartition(b"/")[0]
        if not directory or directory in self._made:
            self._expected.add(path)

    def _make_directories(self, path: bytes) -> None:
        """Make `path` and what leads to it. Nobody else can have put anything there: the box is still ours alone."""
        cut = path.find(b"/")
        while True:
            part = path if cut < 0 else path[:cut]
            if part not in self._made:
                self._made[part] = None
                os.mkdir(self.box + b"/" + part)
                if self._uid:
                    os.chown(self.box + b"/" + part, self._uid, self._uid)
            if cut < 0:
                return
            cut = path.find(b"/", cut + 1)

    def remove(self) -> bool:
        """Remove it, whatever the command left there; False when something stays."""
        try:
            self._remove_expected()
        except OSError:
            for directory in (self.box, self.tmp):
                remove_tree(os.fsdecode(directory))
                if os.path.lexists(directory):
                    return False
        return True

    def _remove_expected(self) -> None:
        """Remove what is known to be there, which mostly is all. Raises OSError when it is not, or not as it was."""
        if len(self._made) > MOST_OPEN:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        # Step by step, and by the directories that are open: one on the way may be a link by now.
        opened = {b"": os.open(self.box, _LOOK)}
        try:
            for path in self._made:
                parent, _, name = path.rpartition(b"/")
                opened[path] = os.open(name, _LOOK, dir_fd=opened[parent])
            for path in self._expected:
                parent, _, name = path.rpartition(b"/")
                os.unlink(name, dir_fd=opened[parent])
            for path in reversed(self._made):
                parent, _, name = path.rpartition(b"/")
                os.rmdir(name, dir_fd=opened[parent])
        finally:
            for descriptor in opened.values():
                os.close(descriptor)
        os.rmdir(self.tmp)
        os.rmdir(self.box)


def remove_tree(path: str) -> None:
    """Remove a tree, also directories that a command left without permissions; never follows a link.

    A command may leave a tree deeper than our stack and longer than a path may be, so nothing here recurses and no
    name has more than one part: a directory in a directory is moved up to the top, and emptied from there. What can't
    be removed stays, without an error.
    """
    try:
        top = _open_directory(path, None)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _empty(top: int) -> None:
    unused = os.urandom(8).hex()  # a name that the command has not thought of
    numbers = itertools.count()
    waiting = _remove_files(top)
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(OSError):
            directory = _open_directory(name, top)
            try:
                for inner in _remove_files(directory):
                    moved = f"{unused}-{next(numbers)}"
                    with contextlib.suppress(OSError):
                        os.close(_open_directory(inner, directory))  # one without write permission can't be moved
                        os.rename(inner, moved, src_dir_fd=directory, dst_dir_fd=top)
                        waiting.append(moved)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=top)


def _open_directory(name: str, parent: int | None) -> int:
    """Open a directory, with all permissions for us; not a link to one."""
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(name, os.O_PATH | flags, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
    finally:
        os.close(handle)
    return os.open(name, os.O_RDONLY | flags, dir_fd=parent)


def _remove_files(directory: int) -> list[str]:
    """Remove everything but directories; answers the directories."""
    directories = []
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        with contextlib.suppress(OSError):
            if is_directory:
                directories.append(name)
            else:
                os.unlink(name, dir_fd=directory)
    return directories
