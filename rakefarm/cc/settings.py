"""The settings that a call is under: read once, and again when a file or a variable is another."""

import os
import threading
from collections.abc import Mapping
from functools import lru_cache

from msgspec import structs

from rakefarm.cc.filecache import FileCache
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.results import Results
from rakefarm.config import ClientSettings, ConfigError, engine_settings, load_settings, says_yes
from rakefarm.logs import logger
from rakefarm.records import RecordStore, UnsafeDirectory
from rakefarm.result_cache import Counts, place_of

_VARIABLES = (
    "HOME", "XDG_CONFIG_HOME", "RAKEFARM_KEY_FILE", "RAKEFARM_SHIP_TOOLCHAIN", "RAKEFARM_HOSTS", "RAKEFARM_ENGINE",
    "RAKEFARM_ENGINE_TOKEN_FILE",
)  # fmt: skip


class CallSettings:
    """For any thread."""

    def __init__(self) -> None:
        self._known: dict[object, ClientSettings] = {}

    def find(self, environ: Mapping[str, str]) -> ClientSettings:
        """Raises ConfigError."""
        variables = tuple([environ.get(name) for name in _VARIABLES])
        key = (variables, *map(_stamp, _files(*variables[:2])))
        settings = self._known.get(key)
        if settings is None:
            settings = load_settings(ClientSettings, "client.toml", None, environ)
            if key_file := environ.get("RAKEFARM_KEY_FILE"):
                settings = structs.replace(settings, key_file=key_file)
            if ships := environ.get("RAKEFARM_SHIP_TOOLCHAIN"):
                settings = structs.replace(settings, ship_toolchain=says_yes("RAKEFARM_SHIP_TOOLCHAIN", ships))
            engine = engine_settings(
                settings.engine, environ.get("RAKEFARM_ENGINE"), environ, bool(environ.get("RAKEFARM_HOSTS"))
            )
            settings = structs.replace(settings, engine=engine)
            self._known = {**self._known, key: settings} if len(self._known) < 100 else {key: settings}
        return settings


@lru_cache(maxsize=64)
def _files(home: str | None, config: str | None) -> tuple[str, str]:
    """Where settings are."""
    own = config or os.path.join(home or "", ".config")
    return "/etc/rakefarm/client.toml", os.path.join(own, "rakefarm", "client.toml")


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class ResultCaches:
    """The result caches that calls have named; mostly there is one. For any thread."""

    def __init__(self, settings: CallSettings, files: FileCache) -> None:
        self._settings = settings
        self._files = files
        self._known: dict[tuple[str, int], tuple[Results, Counts] | None] = {}
        self._lock = threading.Lock()

    def find(self, environ: Mapping[str, str]) -> tuple[Results, Counts] | None:
        """The cache for a call with these variables; None when it is to have none, or it can't be used. Raises
        Local."""
        try:
            place = place_of(self._settings.find(environ), environ)
        except ConfigError as error:
            raise Local(Reason.CONFIGURATION, str(error)) from error
        if place not in self._known:
            with self._lock:
                if place not in self._known:
                    self._known[place] = self._open(*place)
        return self._known[place]

    def _open(self, directory: str, size_bytes: int) -> tuple[Results, Counts] | None:
        if not size_bytes:
            return None
        try:
            return Results(RecordStore(directory, size_bytes), self._files), Counts(directory)
        except UnsafeDirectory as error:
            logger.warning("results are not kept: %s", error)
            return None

    def save(self) -> None:
        """Write down what was counted."""
        with self._lock:
            known = list(self._known.values())
        for each in known:
            if each is not None:
                each[1].save()
