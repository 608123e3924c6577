"""Who commands run as: never root. A server that root starts gives each worker a uid of its own, from a range.

The group has the same number. That a uid is this server's alone is a lock on the byte of that number in one file, held
by the listener for as long as it lives, so two servers on one machine don't share any.
"""

import contextlib
import fcntl
import os


class NoIdentity(Exception):
    """Commands would run as root: the text says why no other uid can be had, and what to do."""


def claims_file(fallback: str) -> str:
    """Where the servers of this machine claim uids: in /run, or in the directory `fallback` where there is none."""
    directory = "/run" if os.access("/run", os.W_OK) else fallback
    return os.path.join(directory, "rakefarm-uids")


class Identities:
    """In the listener: the uids of this server's workers, claimed for as long as it lives."""

    def __init__(self, claims: str, uids: tuple[int, int], count: int) -> None:
        """Claims `count` of the uids from first to last, in the file `claims`. Raises NoIdentity or OSError."""
        self.uids: list[int] = []
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        # Locks of this kind are a process's, so children have none of them; they end with the descriptor.
        self._claims = os.open(claims, flags, 0o600)
        for uid in range(uids[0], uids[1] + 1):
            if len(self.uids) == count:
                break
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, uid)
                self.uids.append(uid)
        if len(self.uids) < count:
            self.close()
            raise NoIdentity(
                f"commands must not run as root, and of the uids {uids[0]}-{uids[1]} fewer than {count} are"
                " free; name a larger range with uids in server.toml, or fewer workers"
            )
        problem = why_not(self.uids[-1])
        if problem:
            self.close()
            raise NoIdentity(
                f"commands must not run as root, and can't run as uid {self.uids[-1]}: {problem}; start the server as"
                " another user, or name other uids in server.toml"
            )

    def close(self) -> None:
        """Let go of the claims: in a child, which has none of its own, or when the server ends."""
        os.close(self._claims)


def why_not(uid: int) -> str:
    """Why this process can't become `uid`, tried for real in a child; empty when it can."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        try:
            become(uid)
        except OSError as error:
            os.write(writer, (error.strerror or str(error)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as pipe:
        problem = pipe.read()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return problem


def become(uid: int) -> None:
    """Become this user for good, without any other group, and without a capability. Raises OSError."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
