"""An engine that calls have named: one connection for all of them, and what has been seen of it.

A call that can't go there runs here, so nobody waits for long: not for an engine that is away (it is asked again after
a while), nor in the queue of one where nothing begins, since no worker offers what is asked for, say.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

from msgspec import Struct

from rakefarm.cc.cancel import Cancel
from rakefarm.cc.engine_package import identity
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.toolchain import Toolchain
from rakefarm.config import ClientSettings
from rakefarm.engine.errors import EngineError
from rakefarm.engine.execution import Execution
from rakefarm.engine.properties import COMPILER, Properties, merge
from rakefarm.engine.session import Session

PATIENCE_S = 20.0
"""How long an engine may be away in the middle of a compile; a build by `rake-p` has more, and nowhere else to go."""
LOOK_AGAIN_S = 10.0
"""How soon one that could not be used is asked again."""
QUEUE_S = 60.0
"""A compile that has waited there for so long, while none of ours has begun, is done here."""
LASTING_S = 60.0
"""How long workers are believed to have other headers of the system than we have."""
POLL_S = 0.5
WATCH_S = 1.0


class Operation(Struct, eq=False):
    """An execution that is under way, as Cancel has it."""

    execution: Execution
    since: float
    overdue: bool = False

    def cut(self) -> None:
        """In a thread of its own: the engine has to be told, which takes as long as an answer from it."""
        threading.Thread(target=self.execution.cancel, daemon=True).start()


class EngineFarm:
    """For any thread."""

    def __init__(self, settings: ClientSettings) -> None:
        """Raises ConfigError when it can't be what the settings say."""
        self.settings = settings
        self.session = Session(settings.engine, settings.insecure, min(settings.engine.patience_s, PATIENCE_S))
        self.name = self.session.name
        self.room = settings.engine.jobs
        """How many compiles it may have at one time."""
        self._places = threading.BoundedSemaphore(self.room)
        self._lock = threading.Lock()
        self._is_open = False
        self._problem = ""
        self._again_at = 0.0
        self._identities: dict[tuple[tuple[bytes, bytes], ...], str] = {}
        self._others: dict[Toolchain, float] = {}  # whose system's headers workers don't have, until when
        self._waiting: set[Operation] = set()
        self._watcher: threading.Thread | None = None
        self._progress_at = time.monotonic()

    def close(self) -> None:
        """End what runs there, and the connection."""
        self.session.cancel()
        self.session.close()

    # --- whether it can be used -----------------------------------------------------------------------

    @contextlib.contextmanager
    def place(self, cancel: Cancel) -> Iterator[None]:
        """One of the compiles that it may have at one time. Raises Local when it can't be used now."""
        while not self._places.acquire(timeout=POLL_S):
            if cancel.gone:
                raise Local(Reason.CANCELLED)
        try:
            self._open()
            yield
        finally:
            self._places.release()

    def _open(self) -> None:
        with self._lock:
            if self._is_open:
                return
            if time.monotonic() >= self._again_at:
                try:
                    self.session.open(self.settings.connect_s)
                    self._is_open = True
                    return
                except EngineError as error:
                    self._leave(str(error))
            raise Local(Reason.NO_SERVER, self._problem)

    def leave(self, problem: str) -> None:
        """It can't be used, as a call has seen: no other is to wait for it now."""
        with self._lock:
            self._leave(problem)

    def _leave(self, problem: str) -> None:
        self._is_open, self._problem = False, problem
        self._again_at = time.monotonic() + LOOK_AGAIN_S

    # --- what is asked of its workers -----------------------------------------------------------------

    def properties(self, toolchain: Toolchain, environ: Mapping[str, str]) -> tuple[Properties, bool]:
        """What a machine must be to run this compiler, and whether its identity is among that."""
        found = self._identity(toolchain, environ) if self.settings.engine.compiler else ""
        return merge(self.session.properties, ((COMPILER, found),) if found else ()), bool(found)

    def _identity(self, toolchain: Toolchain, environ: Mapping[str, str]) -> str:
        known = self._identities.get(toolchain.parts)
        if known is None:
            known = self._identities[toolchain.parts] = identity(toolchain, environ)
        return known

    def has_other_headers(self, toolchain: Toolchain) -> bool:
        """Whether workers are known to have other headers of the system than this compiler finds here."""
        return self._others.get(toolchain, 0.0) > time.monotonic()

    def note_other_headers(self, toolchain: Toolchain) -> None:
        """One has said so. An engine chooses the workers, so it is believed of all."""
        self._others[toolchain] = time.monotonic() + LASTING_S

    # --- the queue there ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def waited_for(self, execution: Execution, cancel: Cancel) -> Iterator[Operation]:
        """For as long as it runs there: it ends with its caller, or when it is `overdue`. Raises Lost when nobody waits
        for it."""
        operation = Operation(execution, time.monotonic())
        with self._lock:
            self._waiting.add(operation)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="engine's queue", daemon=True)
                self._watcher.start()
        try:
            cancel.use(operation)
            yield operation
        finally:
            self.note_begun(operation)
            cancel.use(None)

    def note_begun(self, operation: Operation) -> None:
        """A worker has it, or it has ended."""
        with self._lock:
            self._waiting.discard(operation)
            self._progress_at = time.monotonic()

    def _watch(self) -> None:
        """In a thread of its own, for as long as something waits there."""
        while True:
            time.sleep(WATCH_S)
            now = time.monotonic()
            with self._lock:
                if not self._waiting:
                    self._watcher = None
                    return
                overdue = [
                    each
                    for each in self._waiting
                    if not each.overdue and now - max(each.since, self._progress_at) > QUEUE_S
                ]
                for each in overdue:
                    each.overdue = True
            for each in overdue:
                each.cut()
