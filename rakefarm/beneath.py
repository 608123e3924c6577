"""Files beneath a directory, whatever a command has put there: no link on the way is followed, at no moment.

openat2(2) has the kernel see to it in one step; where a kernel older than 5.6 or a container's filter has no openat2,
the way is walked part by part, which comes to the same.
"""

import errno
import os
from collections.abc import Callable
from functools import cache

_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08  # linux/openat2.h
_SYS_OPENAT2 = 437
_lacking = False


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Open `path` beneath the open `directory`; answers a descriptor. Raises OSError, ELOOP where there is a link."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    if b"/" not in path:
        return os.open(path, flags, dir_fd=directory)
    global _lacking
    if not _lacking:
        try:
            return _openat2(directory, path, flags)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # containers answer EPERM to what they don't know
                raise
            _lacking = error.errno == errno.ENOSYS
    return _walk(directory, path, flags)


def _openat2(directory: int, path: bytes, flags: int) -> int:
    descriptor, number = _caller()(directory, path, flags)
    if descriptor < 0:
        raise OSError(number, os.strerror(number), path)
    return descriptor


@cache
def _caller() -> Callable[[int, bytes, int], tuple[int, int]]:
    """The system call; it answers the descriptor, below 0 for none, and then the error's number."""
    import ctypes  # heavy, and a client hardly ever comes here

    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
    how_type = ctypes.c_uint64 * 3
    resolve, size = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS, ctypes.sizeof(how_type)

    def openat2(directory: int, path: bytes, flags: int) -> tuple[int, int]:
        descriptor = call(_SYS_OPENAT2, directory, path, how_type(flags, 0, resolve), size)
        return descriptor, ctypes.get_errno() if descriptor < 0 else 0

    return openat2


def _walk(directory: int, path: bytes, flags: int) -> int:
    *parents, last = path.split(b"/")
    here = os.dup(directory)
    try:
        for part in parents:
            # A link that isn't followed is opened as itself, and is no directory.
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        return os.open(last, flags, dir_fd=here)
    finally:
        os.close(here)
