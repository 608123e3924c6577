"""What touches a secret and must leave none behind: done in a process of its own, which ends with it.

The process that owns a server is the parent of those that start commands; what it has once read, a key, say, stays in
its memory, and in theirs, long after it was let go of. So it looks at secrets through a child that nobody can trace.
"""

import ctypes
import os
from collections.abc import Callable

from rakefarm.config import ConfigError

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_REFUSED = 3


def run_aside(work: Callable[[], object]) -> None:
    """Do `work` in a child; what it answers is lost. Raises ConfigError with the text of the one that it raised."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
            work()
            status = 0
        except ConfigError as error:
            os.write(writer, os.fsencode(str(error)))
            status = _REFUSED
        except OSError as error:
            os.write(
                writer, f"{error.filename or 'a file of ours'}: {error.strerror}".encode("utf-8", "surrogateescape")
            )
            status = _REFUSED
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = os.fsdecode(pipe.read())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise ConfigError(text or f"the process that looks at keys and certificates ended with status {status}")
