"""make's job server, as a client of it: run under `make -jN`, we take part in its N and never exceed it.

The protocol (GNU make's manual, "POSIX Jobserver Interaction") in full: MAKEFLAGS has `--jobserver-auth=R,W`, two
descriptors of one pipe that we inherit, or `--jobserver-auth=fifo:PATH`; before make 4.2 it was `--jobserver-fds=R,W`.
make has put N - 1 bytes into it. Whoever starts a command beyond its first reads one byte, a token, before, and writes
that very byte back after. The first needs none: it runs in place of us, for whom make holds a token already.

Why nothing is ever lost or made up:

1. A token is in one place: in the pipe, or in one `Token` of one process. Reading moves it in, `give_back` moves it
   out, byte for byte; nobody writes a byte that it has not read. So what has to be shown is that each Token is given
   back once: its holder does so in a `finally`, and whoever knows all holders does it, at the end, for what is out.
2. The first command's right is a token like others, in a pipe of our own with one byte (`own_token`). So which command
   is the first is never asked, and a server of ours in another process may have it as well as we.
3. Nobody blocks in a read. Whether make's pipe blocks belongs to the open file, which make and all its children share:
   to set O_NONBLOCK there would break those that count on blocking, and a read that blocks would hang a Ctrl-C. So we
   open the pipe anew through /proc/self/fd, and that open file is ours alone; to wait is to poll. Between a poll and
   our read another may take the byte: then there is none, and we poll again.
4. The inherited descriptors are never closed or used otherwise: they are for the commands that run here, whose own
   makes find them by the same MAKEFLAGS.

A rule without a `+` before its command has MAKEFLAGS, but not the descriptors: their numbers may be anybody's by now.
What was inherited is known by one thing: it has no close-on-exec flag, or it would not be here, and whatever this
process opened itself has one.
"""

import contextlib
import fcntl
import os
import select
import stat
import struct
from collections.abc import Mapping, Sequence

from msgspec import Struct

_FIFO = "fifo:"
_OPTIONS = ("--jobserver-auth=", "--jobserver-fds=")


class NoJobServer(Exception):
    """MAKEFLAGS names a job server that can't be used; the text says why, and what to do."""


class Token(Struct, frozen=True):
    """The right to run a command: the very byte, and which of the servers it came from."""

    server: int
    byte: bytes


def find_auth(makeflags: str) -> str | None:
    """What MAKEFLAGS says of the job server, `R,W` or `fifo:PATH`; None when it names none. Of several the last holds.

    Blanks and backslashes within a word are escaped there with a backslash; behind `--` come variables.
    """
    found = None
    for word in split_flags(makeflags):
        if word == "--":
            break
        for option in _OPTIONS:
            if word.startswith(option):
                found = word.removeprefix(option)
    return found


def split_flags(makeflags: str) -> list[str]:
    """The words of MAKEFLAGS."""
    words: list[str] = []
    word: list[str] | None = None
    letters = iter(makeflags)
    for letter in letters:
        if letter in " \t\n":
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        word = word or []
        word.append(next(letters, "\\") if letter == "\\" else letter)
    return words if word is None else [*words, "".join(word)]


class JobServer:
    """One pipe of tokens, opened for ourselves. Raises NoJobServer when it can't be."""

    def __init__(self, auth: str, reader: str, writer: str, inherited: tuple[int, ...] = ()) -> None:
        """`inherited` are the descriptors that a child needs to find it by `auth`, too."""
        self.auth = auth
        self.inherited = inherited
        self.reader = _open(reader, os.O_RDWR if reader == writer else os.O_RDONLY)
        try:
            self._writer = self.reader if reader == writer else _open(writer, os.O_WRONLY)
        except NoJobServer:
            os.close(self.reader)
            raise

    def try_read(self) -> bytes | None:
        """A token's byte, or None while there is none."""
        try:
            return os.read(self.reader, 1) or None
        except BlockingIOError:
            return None

    def write(self, byte: bytes) -> None:
        """Put a token back."""
        while True:
            try:
                os.write(self._writer, byte)
            except BlockingIOError:  # it holds more than anyone can have put there; but a token is a token
                poller = select.poll()
                poller.register(self._writer, select.POLLOUT)
                poller.poll()
            except BrokenPipeError:
                return  # make is gone, and all who could want it
            else:
                return

    def count(self) -> int:
        """Tokens that are there now."""
        import termios  # only under make

        free: int = struct.unpack("i", fcntl.ioctl(self.reader, termios.FIONREAD, b"\0" * 4))[0]
        return free

    def close(self) -> None:
        """Let go of it."""
        for file in {self.reader, self._writer}:
            os.close(file)


def open_auth(auth: str) -> JobServer:
    """The job server that `auth` (as in MAKEFLAGS) names. Raises NoJobServer."""
    if auth.startswith(_FIFO):
        path = auth.removeprefix(_FIFO)
        return JobServer(auth, path, path)
    reader, comma, writer = auth.partition(",")
    if not (comma and _is_number(reader) and _is_number(writer)):
        raise NoJobServer(f"{auth!r} is neither R,W nor fifo:PATH")
    if not (_is_inherited_pipe(int(reader)) and _is_inherited_pipe(int(writer))):
        raise NoJobServer(f"descriptors {auth} are not open; put a + before the command in make's rule")
    return _of_pipe(int(reader), int(writer))


def _of_pipe(reader: int, writer: int) -> JobServer:
    return JobServer(f"{reader},{writer}", f"/proc/self/fd/{reader}", f"/proc/self/fd/{writer}", (reader, writer))


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")  # make writes negative ones where it keeps the server for itself
    return digits.isascii() and digits.isdecimal() and len(digits) <= 9


def _is_inherited_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode) and os.get_inheritable(descriptor)
    except OSError:
        return False


def _open(path: str, access: int) -> int:
    try:
        file = os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NoJobServer(f"{path!r} can't be opened: {reason}") from error
    if not stat.S_ISFIFO(os.fstat(file).st_mode):
        os.close(file)
        raise NoJobServer(f"{path!r} is not a pipe")
    return file


def from_environment(environ: Mapping[str, str]) -> JobServer | None:
    """The job server that MAKEFLAGS names, if any. Raises NoJobServer."""
    auth = find_auth(environ.get("MAKEFLAGS", ""))
    return None if auth is None else open_auth(auth)


def own_token() -> JobServer:
    """A pipe with one token, for the command that needs none of make's; its descriptors are closed on exec, so only
    who is handed them has them."""
    reader, writer = os.pipe()
    os.write(writer, b"+")
    return _of_pipe(reader, writer)


class Tokens:
    """Tokens of several servers, those of the first rather. Without a server nothing needs a token. For any thread."""

    def __init__(self, servers: Sequence[JobServer] = ()) -> None:
        self.servers = tuple(servers)

    @property
    def needed(self) -> bool:
        """Whether a command needs one."""
        return bool(self.servers)

    @property
    def readers(self) -> tuple[int, ...]:
        """Descriptors of which one is readable when there is a token."""
        return tuple(server.reader for server in self.servers)

    def try_take(self) -> Token | None:
        """A token, now yours to give back, or None."""
        for number, server in enumerate(self.servers):
            byte = server.try_read()
            if byte is not None:
                return Token(number, byte)
        return None

    def give_back(self, token: Token) -> None:
        """Once for each that was taken."""
        self.servers[token.server].write(token.byte)

    def count(self) -> int:
        """Tokens that could be taken now."""
        return sum(server.count() for server in self.servers)

    def close(self) -> None:
        """Let go of the servers."""
        for server in self.servers:
            with contextlib.suppress(OSError):
                server.close()
