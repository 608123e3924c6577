"""The audit log: who had what run here, when and from where, and how it ended; a JSON line each, for its owner alone.

Written by every worker with one write a line, which the kernel keeps whole in a file that is open for appending.
"""

import datetime
import json
import os
import stat
import threading

from rakefarm.config import ConfigError
from rakefarm.logs import logger

LONGEST_TEXT = 4096
"""Characters of a command that are kept."""


class AuditLog:
    """One worker's way to the file; without a path nothing is kept. For any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._failed = False
        self._descriptor = -1
        self.reopen()

    def reopen(self) -> None:
        """Go on in a new file when the old one has been moved away."""
        if not self._path:
            return
        try:
            fresh = _open(self._path)
        except ConfigError as error:
            logger.error("the audit log stays as it was: %s", error)
            return
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = fresh

    @property
    def kept(self) -> bool:
        """Whether there is one: else nobody need put a line together."""
        return bool(self._path)

    def write(self, event: str, peer: str, **fields: object) -> None:
        """Add a line. That it can't be written is logged once, and stops nobody."""
        if not self._path:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"time": now, "event": event, "peer": peer, **fields}
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        try:
            with self._lock:
                os.write(self._descriptor, line)
            self._failed = False
        except OSError as error:
            if not self._failed:
                logger.error("%s: the audit log can't be written: %s", self._path, error.strerror)
            self._failed = True


def shown(text: bytes | str) -> str:
    """A command or name as the log has it: what is no UTF-8 escaped, and no longer than makes sense."""
    if isinstance(text, bytes):
        text = text[: 4 * LONGEST_TEXT].decode("utf-8", "backslashreplace")
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def check(path: str) -> None:
    """In the listener: see that the log can be written. Raises ConfigError."""
    if path:
        os.close(_open(path))


def _open(path: str) -> int:
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise ConfigError(f"audit_log {path}: {error.strerror}") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077:
        return descriptor
    os.close(descriptor)
    raise ConfigError(f"audit_log {path}: it must be a regular file of ours that nobody else can read; chmod 600 it")
