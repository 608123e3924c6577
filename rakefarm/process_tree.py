"""What a process and all that it has started use of the processors, read from the kernel's own lists (proc(5)): a few
dozen small files, where psutil looks through all processes.
"""

import contextlib
import os
from collections.abc import Iterator

MOST_THREADS = 64
"""In a process of more, its main thread stands for all: a compiler has few, a server few that start something."""
_TICKS = os.sysconf("SC_CLK_TCK")
_AT_WORK = (b"R", b"D")
"""Runnable, or waiting for a disk: either would go on at once if it could."""


def processor_seconds(root: int) -> float:
    """Processor seconds of the process, of all its living descendants, and of those that they have reaped."""
    return sum(sum(int(field) for field in fields[11:15]) for _, fields in _walk(root)) / _TICKS


def is_at_work(root: int) -> bool:
    """Whether a thread of the process or of a descendant could go on at this moment, but for a processor or a disk."""
    return any(_has_work(pid, fields) for pid, fields in _walk(root))


def _has_work(pid: int, fields: list[bytes]) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return any(_stat(f"/proc/{pid}/task/{thread}")[0] in _AT_WORK for thread in _threads(pid, fields))
    return False


def _walk(root: int) -> Iterator[tuple[int, list[bytes]]]:
    """Each process of the tree, with the fields of its stat file from the third on."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _stat(f"/proc/{pid}")
            yield pid, fields
            for thread in _threads(pid, fields):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    waiting += [int(child) for child in file.read().split()]


def _threads(pid: int, fields: list[bytes]) -> list[int]:
    if int(fields[17]) > MOST_THREADS:
        return [pid]
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def _stat(directory: str) -> list[bytes]:
    with open(f"{directory}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()  # before it stands the name, which may hold anything
