"""What one command may take: looked at while it runs, and before its inputs are taken and its outputs are sent.

What the kernel can keep it keeps: file sizes and numbers of processes (see `isolation.confinement`), and the size of a
box that is a file system of its own. The rest is looked at a few times a second, which costs a short command nothing.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from rakefarm.config import Limits
from rakefarm.server.job import Ended
from rakefarm.wire.messages import Input

USAGE_PERIOD_S = 0.1
BOX_PERIOD_S = 0.5
SHELL_SIGNAL = 128
"""A shell exits with this and the signal's number when its last command was killed by one."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(Struct, frozen=True):
    """What a command's processes have used and hold: seconds, bytes, how many there are."""

    cpu_s: float
    memory_bytes: int
    processes: int


def usage_below(pid: int) -> Usage:
    """Of all that a process has started, daemons included, as far as it is there or was waited for by one that is."""
    cpu, memory, processes = 0, 0, 0
    for child in _descendants(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{child}/stat", "rb") as file:
                # After the name, which may hold anything, come the fields from the third on: see proc(5).
                fields = file.read().rpartition(b")")[2].split()
            with open(f"/proc/{child}/statm", "rb") as file:
                _, resident, shared, *_ = file.read().split()
            cpu += sum(int(field) for field in fields[11:15])
            memory += (int(resident) - int(shared)) * _PAGE_BYTES
            processes += 1
    return Usage(cpu / _TICKS, memory, processes)


def _descendants(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                    children = [int(child) for child in file.read().split()]
                yield from children
                waiting += children


def box_usage(directories: Sequence[bytes], most_files: int) -> tuple[int, int]:
    """Bytes on disk and files below these directories, links not followed; it stops counting beyond `most_files`."""
    size, files, waiting = 0, 0, list(directories)
    while waiting and files <= most_files:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                files += 1
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return size, files


class Watch:
    """Over one command, from its start: `look` now and then, at the latest at `due` (monotonic seconds)."""

    def __init__(self, limits: Limits, pid: int, directories: Sequence[bytes], box_is_limited: bool) -> None:
        self._limits = limits
        self._pid = pid
        self._directories = directories
        self._box = not box_is_limited and bool(limits.box_size or limits.box_files)
        self.due = time.monotonic() + USAGE_PERIOD_S
        self._box_due = time.monotonic() + BOX_PERIOD_S

    def look(self) -> str:
        """What the command takes too much of, as a line for people; empty while it does not."""
        now = time.monotonic()
        self.due = now + USAGE_PERIOD_S
        limits = self._limits
        if limits.memory or limits.cpu_s:
            usage = usage_below(self._pid)
            if limits.memory and usage.memory_bytes > limits.memory:
                return over("memory", limits.memory, "of memory")
            if limits.cpu_s and usage.cpu_s > limits.cpu_s:
                return over("cpu_s", limits.cpu_s, "of processor time")
        if self._box and now >= self._box_due:
            size, files = box_usage(self._directories, limits.box_files or 1 << 62)
            self._box_due = time.monotonic() + BOX_PERIOD_S
            if limits.box_size and size > limits.box_size:
                return over("box_size", limits.box_size, "of disk in its directory")
            if limits.box_files and files > limits.box_files:
                return over("box_files", limits.box_files, "files in its directory")
        return ""


def over(key: str, limit: float, what: str) -> str:
    """The line that says which limit was reached, and whose it is."""
    if key.endswith("_s"):
        amount = f"{limit:g} s"
    elif key in ("processes", "box_files", "inputs", "outputs"):
        amount = f"{limit:.0f}"
    else:
        amount = show_size(limit)
    return f"more than {amount} {what}; this server allows no more (limits.{key} of its server.toml)"


def show_size(size: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def end_of(ended: Ended, limits: Limits, own_timeout_s: float) -> str:
    """Which limit of ours, rather than its own doing or its action's time limit, ended a command; empty if none did."""
    if ended.outcome == "timed_out" and limits.time_s and not 0 < own_timeout_s <= limits.time_s:
        return over("time_s", limits.time_s, "of time")
    too_large = (ended.outcome == "signalled" and ended.status == signal.SIGXFSZ) or (
        ended.outcome == "exited" and ended.status == SHELL_SIGNAL + signal.SIGXFSZ
    )
    if limits.file_size and too_large:
        return over("file_size", limits.file_size, "in one file")
    return ""


def refuse_inputs(manifest: Sequence[Input], limits: Limits) -> str:
    """Why the inputs of an action are too many or too large here; empty when they are not."""
    if limits.inputs and len(manifest) > limits.inputs:
        return over("inputs", limits.inputs, "inputs")
    if limits.input_size and sum(entry.size for entry in manifest) > limits.input_size:
        return over("input_size", limits.input_size, "of inputs")
    return ""


class TooMuch(Exception):
    """The command made more than it may: the text says of what."""


def check_outputs(files: int, size: int, limits: Limits) -> None:
    """Raises TooMuch when so many files, or bytes in all, are more than may be returned."""
    if limits.outputs and files > limits.outputs:
        raise TooMuch(over("outputs", limits.outputs, "outputs"))
    if limits.output_size and size > limits.output_size:
        raise TooMuch(over("output_size", limits.output_size, "of outputs"))
