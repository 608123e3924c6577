"""Ends the local commands of a client that is killed: a process whose standard input is a pipe from us.

The kernel closes the pipe however we end; the guard then kills the process groups that stand in a file in memory. It
is told nothing meanwhile and never wakes: a command costs two small writes to that file. It starts with the first
local command; a build that runs everything on the farm has none.
"""

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

from rakefarm import process

LINE_BYTES = 12
# A line is the number of a group with its minus sign, or blanks. The shell opens the file anew, at its beginning.
SCRIPT = 'read -r end; while read -r group; do [ "$group" ] && kill -s KILL -- "$group"; done < /proc/self/fd/3'


class Guard:
    """Runs commands as `process.run` does, under guard. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: int | None = None
        self._started = False
        self._free: list[int] = []
        self._lines = 0

    def run(self, command: bytes, environment: Mapping[bytes, bytes], **options: Any) -> process.Completed:
        """As `process.run`."""
        file, line = self._take_line()
        if file is None:
            return process.run(command, environment, **options)

        def note(group: int) -> None:
            self._write(file, line, b"-%d" % group)

        try:
            return process.run(command, environment, on_start=note, **options)
        finally:
            self._write(file, line, b"")
            with self._lock:
                self._free.append(line)

    def _take_line(self) -> tuple[int | None, int]:
        with self._lock:
            if not self._started:
                self._started = True
                with contextlib.suppress(OSError):  # a system that has no process left for it: then without
                    self._file = _start()
            if self._free:
                return self._file, self._free.pop()
            self._lines += 1
            return self._file, self._lines - 1

    @staticmethod
    def _write(file: int, line: int, text: bytes) -> None:
        os.pwrite(file, text.ljust(LINE_BYTES - 1) + b"\n", line * LINE_BYTES)


def _start() -> int:
    """Start the guard; answers the file that it will read. That and our end of the pipe stay open."""
    file = os.memfd_create("commands", os.MFD_CLOEXEC)
    theirs, _ = os.pipe2(os.O_CLOEXEC)
    try:
        process.start_aside(SCRIPT, theirs, file)
    finally:
        os.close(theirs)
    return file
