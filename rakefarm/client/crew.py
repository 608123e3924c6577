"""Runner threads: each does one action at a time, blocking; remote and local actions have runners of their own.

A runner accounts for its action itself, and only the last of a set wakes whoever waits for the set: a thread that
is woken for every action takes the interpreter away from those at work, which doubled the client's share of a small
action.
"""

import queue
import threading
import time
from collections.abc import Callable

from rakefarm.client.plan import PlannedAction

JOIN_S = 1.5


class Crew:
    """`perform` runs an action to its end; `idle` is called by a remote runner that finds nothing to do."""

    def __init__(self, perform: Callable[[PlannedAction], None], idle: Callable[[], None]) -> None:
        self._perform = perform
        self._idle = idle
        self._threads: dict[bool, list[threading.Thread]] = {True: [], False: []}
        self._queues: dict[bool, queue.SimpleQueue[PlannedAction | None]] = {
            True: queue.SimpleQueue(),
            False: queue.SimpleQueue(),
        }
        self._lock = threading.Lock()
        self._outstanding = 0
        self._stopping = False
        self._error: BaseException | None = None
        self._settled = threading.Event()
        self._settled.set()

    def submit(self, planned: PlannedAction) -> None:
        """Have an action performed by a runner of its sort, as soon as one is free."""
        with self._lock:
            self._outstanding += 1
            self._settled.clear()
        self._queues[planned.action.remote].put(planned)

    def hire(self, remote: bool, wanted: int) -> None:
        """Have at least `wanted` runners of this sort."""
        threads = self._threads[remote]
        for _ in range(wanted - len(threads)):
            thread = threading.Thread(
                target=self._work, args=(remote,), name="remote" if remote else "local", daemon=True
            )
            threads.append(thread)
            thread.start()

    def wait_settled(self) -> None:
        """Until every action submitted so far has ended. Raises what a runner met that was not the action's."""
        self._settled.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Begin nothing more; wait a little for the runners to end."""
        self._stopping = True
        threads = [*self._threads[True], *self._threads[False]]
        for remote, waiting in self._queues.items():
            for _ in self._threads[remote]:
                waiting.put(None)
        deadline = time.monotonic() + JOIN_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # --- in a runner thread ---------------------------------------------------------------------------

    def _work(self, remote: bool) -> None:
        waiting = self._queues[remote]
        while not self._stopping and (planned := self._next(waiting)) is not None:
            try:
                self._perform(planned)
            except BaseException as error:
                self._fail(error)
                return
            with self._lock:
                self._outstanding -= 1
                if not self._outstanding:
                    self._settled.set()

    def _next(self, waiting: "queue.SimpleQueue[PlannedAction | None]") -> PlannedAction | None:
        try:
            return waiting.get_nowait()
        except queue.Empty:
            self._idle()
            return waiting.get()

    def _fail(self, error: BaseException) -> None:
        """Handed to the main thread, which ends the build and raises it again; the first one wins."""
        with self._lock:
            self._error = self._error or error
            self._settled.set()
