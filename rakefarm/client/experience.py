"""What earlier builds have taught, kept from one to the next: `$XDG_STATE_HOME/rakefarm/history`.

A file of msgpack, replaced whole by rename. Of two builds that end at once the last wins, and what the other learned is
learned again. One that can't be read or written costs predictions, never a build.
"""

import contextlib
import os
from collections.abc import Mapping

import msgspec

from rakefarm.market.history import Experience, History

MOST_BYTES = 16 << 20


class Experiences:
    """The history of this user's builds."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = os.path.join(state_directory(environ), "history")
        self.history = self._load()

    def _load(self) -> History:
        try:
            with open(self._path, "rb") as file:
                return History(msgspec.msgpack.decode(file.read(MOST_BYTES), type=list[tuple[str, Experience]]))
        except (OSError, msgspec.MsgspecError, ValueError):
            return History()

    def save(self) -> None:
        """Keep it for the next build."""
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            beside = f"{self._path}-{os.getpid()}"
            try:
                with open(beside, "wb") as file:
                    file.write(msgspec.msgpack.encode(list(self.history.items())))
                os.replace(beside, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(beside)
                raise


def state_directory(environ: Mapping[str, str]) -> str:
    """Where this user's state is kept."""
    home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or "/var/tmp", ".local", "state")
    return os.path.join(home, "rakefarm")
