"""Where the helper's socket and the compiled launcher are: in a directory of this user's alone."""

import os
import stat
from collections.abc import Mapping

from rakefarm import __version__


class LocationError(Exception):
    """There is no safe directory; the text says why."""


def runtime_directory(environ: Mapping[str, str]) -> str:
    """The directory of the socket, made if need be. Raises LocationError when it is a stranger's.

    A C program has the same rule (`launcher.c`): $RAKEFARM_CC_DIRECTORY, or $XDG_RUNTIME_DIR/rakefarm-cc, or
    /tmp/rakefarm-cc-UID.
    """
    named = environ.get("RAKEFARM_CC_DIRECTORY", "")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    path = named or (os.path.join(runtime, "rakefarm-cc") if runtime else f"/tmp/rakefarm-cc-{os.geteuid()}")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
        raise LocationError(f"{path}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise LocationError(f"{path} is not a directory of this user's alone (mode 0700)")
    return path


def launcher_path(environ: Mapping[str, str]) -> str:
    """Where the compiled launcher of this release is, or is to be."""
    home = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or "/var/tmp", ".cache")
    return os.path.join(home, "rakefarm", f"cc-{__version__}", "rakefarm-cc")
