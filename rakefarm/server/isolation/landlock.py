"""Landlock: which files a process and its children may open, by the kernel's newest ABI that both of us know.

The rights are those of linux/landlock.h. What a ruleset *handles* is denied everywhere but beneath the paths that it
names. Landlock says nothing of stat(2), of what is open already, of UDP, pathname sockets and /proc's own checks: the
rest is seccomp's, and the namespaces'.
"""

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from rakefarm.server.isolation import kernel

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Those that a rule for anything but a directory may have."""
NETWORK_RIGHTS = 1 << 0 | 1 << 1  # bind and connect TCP; from ABI 4 on
SCOPES = 1 << 0 | 1 << 1  # abstract Unix sockets, and signals, of others
SCOPES_SINCE = 6
READ = EXECUTE | READ_FILE | READ_DIR
OWN = ~(MAKE_CHAR | MAKE_BLOCK | MAKE_SOCK | IOCTL_DEV)

_VERSION = 1
_PATH_BENEATH = 1


def best_abi() -> int:
    """The kernel's newest ABI, from 1. Raises OSError where there is no Landlock, or where it is switched off."""
    return kernel.syscall("landlock_create_ruleset", kernel.SYS_LANDLOCK_CREATE_RULESET, 0, 0, _VERSION)


class Ruleset:
    """Denies everything that the kernel lets it handle, but for what is allowed before `restrict`."""

    def __init__(self) -> None:
        self.abi = best_abi()
        self._handled = RIGHTS_BY_ABI[min(self.abi, max(RIGHTS_BY_ABI))]
        fields = [self._handled]
        if self.abi >= 4:
            fields.append(NETWORK_RIGHTS)
        if self.abi >= SCOPES_SINCE:
            fields.append(SCOPES)
        attributes = ctypes.create_string_buffer(struct.pack(f"={len(fields)}Q", *fields))
        self._descriptor = kernel.syscall(
            "landlock_create_ruleset",
            kernel.SYS_LANDLOCK_CREATE_RULESET,
            ctypes.addressof(attributes),
            8 * len(fields),
            0,
        )

    def allow(self, paths: Iterable[str | bytes], rights: int) -> None:
        """Allow `rights` on these files and beneath these directories; one that is not there needs no rule."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
                try:
                    self._add(place, rights)
                finally:
                    os.close(place)

    def _add(self, place: int, rights: int) -> None:
        rights &= self._handled
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place))
        kernel.syscall(
            "landlock_add_rule",
            kernel.SYS_LANDLOCK_ADD_RULE,
            self._descriptor,
            _PATH_BENEATH,
            ctypes.addressof(rule),
            0,
        )

    def restrict(self) -> None:
        """Hold this process and all its children to the rules from now on; it must have no new privileges."""
        kernel.syscall("landlock_restrict_self", kernel.SYS_LANDLOCK_RESTRICT_SELF, self._descriptor, 0)
        os.close(self._descriptor)
