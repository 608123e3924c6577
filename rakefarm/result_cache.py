"""Where a user's result cache is, how large it may be, and what has come of the lookups in it."""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping

from rakefarm.config import ClientSettings, ConfigError
from rakefarm.market.needs import parse_size

SAVE_EACH_S = 5.0
COUNTS_BYTES = 1 << 16


def place_of(settings: ClientSettings, environ: Mapping[str, str]) -> tuple[str, int]:
    """The directory and the cap in bytes (0: no results are kept): variable before setting before default.

    Raises ConfigError.
    """
    directory = environ.get("RAKEFARM_RESULT_CACHE") or settings.result_cache
    if not directory:
        home = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or "/var/tmp", ".cache")
        directory = os.path.join(home, "rakefarm", "results")
    if not os.path.isabs(directory):
        raise ConfigError(f"RAKEFARM_RESULT_CACHE={directory}: write a whole path, from / on")
    text = environ.get("RAKEFARM_RESULT_CACHE_SIZE")
    size = parse_size(text) if text else settings.result_cache_size
    if size is None:
        raise ConfigError(f"RAKEFARM_RESULT_CACHE_SIZE={text}: write a size like 5G, or 0 for no cache")
    return directory, size


class Counts:
    """How often what has come of a lookup, over all processes that use the directory. For any thread.

    A process adds to the file now and then: one that is killed loses a few seconds of it.
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "counts")
        self._lock = threading.Lock()
        self._new: Counter[str] = Counter()
        self._saved_at = time.monotonic()

    def add(self, name: str) -> None:
        """Count one."""
        with self._lock:
            self._new[name] += 1
            due = time.monotonic() - self._saved_at > SAVE_EACH_S
        if due:
            self.save()

    def save(self) -> None:
        """Add what is new to the file; what can't be written is added another time."""
        with self._lock, contextlib.suppress(OSError):
            self._saved_at = time.monotonic()
            if not self._new:
                return
            lock = os.open(self._path + ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                beside = f"{self._path}-{os.getpid()}"
                with open(beside, "w", encoding="utf-8") as file:
                    json.dump(Counter(_load(self._path)) + self._new, file)
                os.replace(beside, self._path)
                self._new.clear()
            finally:
                os.close(lock)

    def read(self) -> dict[str, int]:
        """What has been saved."""
        return _load(self._path)

    def clear(self) -> None:
        """Begin anew."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def _load(path: str) -> dict[str, int]:
    try:
        with open(path, "rb") as file:
            told = json.loads(file.read(COUNTS_BYTES))
    except (OSError, ValueError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {str(name): count for name, count in told.items() if isinstance(count, int) and count > 0}
