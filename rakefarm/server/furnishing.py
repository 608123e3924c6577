"""What a process that runs commands is given before its first, in an order that keeps secrets where they belong."""

import contextlib
import ctypes
import gc
import os
import signal
import socket

from msgspec import Struct

from rakefarm.config import ConfigError, ServerSettings
from rakefarm.logs import logger
from rakefarm.open_files import allow_more
from rakefarm.server import door
from rakefarm.server.admission import Admission
from rakefarm.server.audit import AuditLog
from rakefarm.server.entrance import Entrance
from rakefarm.server.executors import Executors
from rakefarm.server.grants import Grants
from rakefarm.server.isolation.confinement import Confinement
from rakefarm.server.likeness import Likeness
from rakefarm.server.results import KeptResults
from rakefarm.server.sandbox import WorkerSandbox
from rakefarm.server.scoreboard import Scoreboard, WorkerBoard
from rakefarm.server.store import Store
from rakefarm.server.workplace import Workplace, environments

BOOT_FAILED = 3
"""Exit status of a worker that can't even start: starting another would fail the same way."""
NOT_NOW = 4
"""Of one that finds its files other than they were at the start: somebody may be changing them."""
GC_ALLOCATIONS = 20_000
"""How many objects more than before the collector looks through the young ones: an action makes hundreds, no cycles."""
M_MMAP_THRESHOLD = -3  # malloc.h
LARGE_BYTES = 1 << 20


class CannotFurnish(Exception):
    """The process ends with this status; the log says why."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class WayIn(Struct, frozen=True):
    """How connections come to a worker: by which rule, and where to tell how it goes with each."""

    entrance: Entrance
    door: door.Board


class Inherited(Struct, frozen=True):
    """What process number `number` of the pool has from the listener that forked it; `channel` leads there, `directory`
    is its own."""

    number: int
    channel: socket.socket
    settings: ServerSettings
    grants: Grants
    scoreboard: Scoreboard
    directory: str
    confinement: Confinement
    way_in: WayIn


def furnish(inherited: Inherited) -> Workplace:
    """In that process, while it has one thread, as its first act. Raises CannotFurnish."""
    settings, confinement, directory = inherited.settings, inherited.confinement, inherited.directory
    # The listener decides: a terminal's Ctrl-C reaches all of us, and so does the SIGTERM of who ends a process group.
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    _give_memory_back()
    gc.set_threshold(GC_ALLOCATIONS, *gc.get_threshold()[1:])
    try:
        executors = Executors([inherited.channel], confinement, directory, settings.slots)
        allow_more()  # only now: commands get the limit that the server was started with
        sandbox = WorkerSandbox(directory, confinement.uid)
        store = Store(settings.cache_directory, settings.cache_size, settings.processes)
        worker_grants = inherited.grants.open(inherited.number)
        audit = AuditLog(settings.audit_log)
        # Only now: the process that starts executors must not have the keys in its memory.
        admission = Admission(inherited.way_in.entrance)
    except ConfigError as error:
        logger.error("a worker can't start, and another will try: %s", error)
        raise CannotFurnish(NOT_NOW) from error
    except OSError as error:
        place = os.fsdecode(error.filename) if error.filename else "its directories"
        logger.error("a worker can't start: %s: %s", place, error.strerror)
        raise CannotFurnish(BOOT_FAILED) from error
    board = WorkerBoard(inherited.scoreboard, inherited.number)
    passing = environments(settings)
    likeness = Likeness()
    results = KeptResults(settings, passing, executors.confinement.level, store, likeness)
    return Workplace(
        settings,
        worker_grants,
        board,
        store,
        sandbox,
        executors,
        likeness,
        results,
        socket.gethostname(),
        admission,
        audit,
        passing,
    )


def _give_memory_back() -> None:
    """Have the C library take every large block from the system and give it back when it is free.

    Otherwise it learns from the first large message to keep such blocks, and we stay at the size of the largest.
    """
    with contextlib.suppress(AttributeError):  # a C library without mallopt(3) does so anyway
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
