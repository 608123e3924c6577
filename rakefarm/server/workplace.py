"""What the threads of one worker share."""

import os
from collections.abc import Callable
from functools import lru_cache

from msgspec import Struct

from rakefarm.config import Limits, ServerSettings
from rakefarm.server.admission import Admission
from rakefarm.server.audit import AuditLog
from rakefarm.server.executors import Executors
from rakefarm.server.grants import WorkerGrants
from rakefarm.server.likeness import Likeness
from rakefarm.server.results import KeptResults
from rakefarm.server.sandbox import WorkerSandbox
from rakefarm.server.scoreboard import WorkerBoard
from rakefarm.server.store import Store
from rakefarm.wire.messages import Variable

PASSED_VARIABLES = frozenset({b"LANG", b"LANGUAGE", b"TZ", b"SOURCE_DATE_EPOCH"})
REMEMBERED_ENVIRONMENTS = 64

NO_LIMITS = Limits(**dict.fromkeys(Limits.__struct_fields__, 0))


class Workplace(Struct, frozen=True):
    """What a worker's threads share: settings, its view of grants and scoreboard, what it owns, and which variables a
    command gets of those that its client sent."""

    settings: ServerSettings
    grants: WorkerGrants
    board: WorkerBoard
    store: Store
    sandbox: WorkerSandbox
    executors: Executors
    likeness: Likeness
    results: KeptResults
    name: str
    admission: Admission
    audit: AuditLog
    environment: Callable[[tuple[Variable, ...]], dict[bytes, bytes]]

    @property
    def limits(self) -> Limits:
        """What one command may take; at the level none, which is none, as much as it likes."""
        return self.settings.limits if self.executors.confinement.rank else NO_LIMITS

    def clear(self) -> None:
        """At the process's end: nothing that it began runs on, or is left."""
        self.executors.end_all()
        self.grants.give_tokens_back()
        self.sandbox.remove()


def environments(settings: ServerSettings) -> Callable[[tuple[Variable, ...]], dict[bytes, bytes]]:
    """What makes a command's environment of what its client sent, as these settings have it: the variables that are the
    same for all actions of a client. Not to be changed; a client sends the same with every action."""
    allowed = PASSED_VARIABLES | {os.fsencode(name) for name in settings.environment}
    own = {b"PATH": os.fsencode(settings.path)}
    if settings.shared:
        own[b"RAKEFARM_SHARED"] = os.fsencode(":".join(settings.shared))

    @lru_cache(maxsize=REMEMBERED_ENVIRONMENTS)
    def make(variables: tuple[Variable, ...]) -> dict[bytes, bytes]:
        passed = {
            variable.name: variable.value
            for variable in variables
            if variable.name in allowed or variable.name.startswith(b"LC_")
        }
        return {**passed, **own}

    return make
