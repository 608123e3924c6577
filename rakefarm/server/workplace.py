"""What the threads of one worker share."""

from msgspec import Struct

from rakefarm.config import ServerSettings
from rakefarm.server.admission import Admission
from rakefarm.server.audit import AuditLog
from rakefarm.server.executors import Executors
from rakefarm.server.grants import WorkerGrants
from rakefarm.server.likeness import Likeness
from rakefarm.server.sandbox import WorkerSandbox
from rakefarm.server.scoreboard import WorkerBoard
from rakefarm.server.store import Store


class Workplace(Struct, frozen=True):
    """What a worker's threads share: settings, its view of grants and scoreboard, and what it owns."""

    settings: ServerSettings
    grants: WorkerGrants
    board: WorkerBoard
    store: Store
    sandbox: WorkerSandbox
    executors: Executors
    likeness: Likeness
    isolation: str
    name: str
    admission: Admission
    audit: AuditLog
