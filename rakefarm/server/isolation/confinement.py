"""What confines an executor, and so every command that it starts: put together once, then entered by each executor.

The steps stand in the order in which the kernel wants them: namespaces while there are capabilities for them, the root
while paths still mean what they meant, then the user, then everything that takes rights away.
"""

import contextlib
import os
import resource

from msgspec import Struct

from rakefarm.config import Limits
from rakefarm.levels import PROTECTIONS, rank
from rakefarm.server.isolation import identity, kernel, landlock, namespaces, seccomp

PROCESS, LANDLOCK, NAMESPACES = rank("process"), rank("landlock"), rank("namespaces")
HARMLESS = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu")
"""What programs read to learn how large the machine is; at the level landlock nothing else of /proc is to be had."""


class Confinement(Struct, frozen=True):
    """How commands are confined. `uid` is who they run as, 0 for whoever the server is; `visible` further directories
    that they may read; `own_processes` whether each executor has a PID namespace; `box_bytes` the size of a box that is
    a file system of its own, else 0."""

    level: str = "none"
    uid: int = 0
    visible: tuple[str, ...] = ()
    own_processes: bool = False
    box_bytes: int = 0
    limits: Limits = Limits()

    @property
    def rank(self) -> int:
        """Where its level stands."""
        return rank(self.level)

    def missing(self) -> tuple[str, ...]:
        """The protections that are not in force."""
        return tuple([word for word in PROTECTIONS if word not in self._in_force()])

    def _in_force(self) -> set[str]:
        found = set()
        if self.rank >= PROCESS:
            found |= {"privileges", "strays", "secrets"}
            if self.own_processes:
                found.add("processes")
            if self.uid:
                found.add("own-uid")
        if self.rank >= LANDLOCK:
            found.add("files")
            if kernel.ARCHITECTURE in seccomp.AUDIT_ARCHITECTURES:
                found |= {"syscalls", "network"}
            if not self.own_processes and landlock.best_abi() >= landlock.SCOPES_SINCE:
                found.add("processes")
        if self.rank >= NAMESPACES:
            found |= {"processes", "network", "own-root"}
            if self.box_bytes:
                found.add("box-size")
        return found

    def detach(self) -> None:
        """In the process that will fork the executor: have it be the first of its own processes. Raises OSError."""
        if self.own_processes:
            namespaces.leave(everything=self.rank >= NAMESPACES)

    def enter(self, place: str) -> str:
        """In the executor, for good: be confined, with `place` as the only directory to write in. Answers where that is
        now. Raises OSError, and then nothing may be run."""
        inside = place
        if self.rank >= NAMESPACES:
            box_files = self.limits.box_files
            namespaces.build_root(place, self.visible, self.uid or os.getuid(), self.box_bytes, box_files)
            inside = namespaces.HOME
        if self.rank >= PROCESS:
            self._set_limits()
        if self.uid:
            identity.become(self.uid)
        if self.rank < PROCESS:
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
            return inside
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self.level == "landlock":
            self._restrict_files(place)
        if self.rank >= LANDLOCK:
            with contextlib.suppress(seccomp.NoTable):  # then `missing` says so
                seccomp.restrict()
        return inside

    def _set_limits(self) -> None:
        limits = self.limits
        _limit(resource.RLIMIT_CORE, 0)
        if limits.file_size:
            _limit(resource.RLIMIT_FSIZE, limits.file_size)
        if limits.processes:
            # It counts the processes of a user: with a uid, or a user namespace, of its own, only those of the farm.
            others = 0 if self.uid or self.own_processes else _count_own()
            _limit(resource.RLIMIT_NPROC, limits.processes + others)

    def _restrict_files(self, place: str) -> None:
        rules = landlock.Ruleset()
        rules.allow((*namespaces.SYSTEM, *self.visible, *HARMLESS), landlock.READ)
        rules.allow([f"/dev/{name}" for name in namespaces.DEVICES], landlock.READ_FILE | landlock.WRITE_FILE)
        rules.allow([place], landlock.OWN)
        rules.restrict()


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def _count_own() -> int:
    """How many processes and threads this user has."""
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count
