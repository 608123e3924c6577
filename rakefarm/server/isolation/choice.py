"""What a server's commands are confined by and run as: decided by the listener, once, before there are workers."""

import os

from msgspec import structs

from rakefarm.config import ServerSettings
from rakefarm.levels import parse_uids
from rakefarm.server.isolation import kernel
from rakefarm.server.isolation.confinement import PROCESS, Confinement
from rakefarm.server.isolation.identity import Identities, NoIdentity, claims_file
from rakefarm.server.isolation.probe import LevelFails, choose_confinement
from rakefarm.server.sandbox import in_memory


class CannotConfine(Exception):
    """There is no level, or no user, to run commands at or as; the text says why, and what to do."""


class ServerConfinement:
    """In the listener. `common` is what the confinements of all workers have in common."""

    def __init__(self, settings: ServerSettings, directory: str) -> None:
        """Tries the levels in `directory`, the server's own. Raises CannotConfine. From the level process on, this
        process and all that it forks can't be traced or looked into by its user any more."""
        self._identities: Identities | None = None
        try:
            if os.geteuid() == 0:
                claims = claims_file(os.path.dirname(directory))
                self._identities = Identities(claims, parse_uids(settings.uids), 2 * settings.processes)
            base = Confinement(
                uid=self._identities.uids[0] if self._identities else 0,
                visible=(*settings.shared, *[path for path in settings.path.split(":") if path]),
                box_bytes=settings.limits.box_size if in_memory(directory) else 0,
                limits=settings.limits,
            )
            self.common = choose_confinement(settings.isolation, base, directory)
        except NoIdentity as error:
            raise CannotConfine(str(error)) from error
        except LevelFails as failure:
            raise CannotConfine(
                f"--isolation {settings.isolation} does not hold here: {failure}; --isolation auto takes the highest"
                " level that does"
            ) from failure
        if self.common.rank >= PROCESS:
            kernel.prctl(kernel.PR_SET_DUMPABLE, 0)

    def of_worker(self, number: int) -> Confinement:
        """A worker's: where root started the server, its commands have a uid that no other worker's have; but at the
        level none, which is none, all have the same."""
        if self._identities is None or self.common.rank < PROCESS:
            return self.common
        return structs.replace(self.common, uid=self._identities.uids[number])

    def close(self) -> None:
        """Let go of the uids: in a worker, or at the end."""
        if self._identities is not None:
            self._identities.close()

    def __str__(self) -> str:
        return f"isolation={self.common.level} missing={','.join(self.common.missing()) or 'nothing'}"
