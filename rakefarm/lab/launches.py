"""What starting commands takes: processor time that all starts queue for, where one machine stands for many."""

from collections import deque
from collections.abc import Callable

from rakefarm.lab.timeline import Timeline


class Launches:
    """`launch_s` seconds a start, on `cores` processors that all hosts share; 0 cores: each start has one of its
    own."""

    def __init__(self, timeline: Timeline, launch_s: float, cores: int) -> None:
        self._timeline = timeline
        self._launch_s = launch_s
        self._shared = cores > 0
        self._free = cores
        self._queue: deque[Callable[[], object]] = deque()

    def launch(self, then: Callable[[], object]) -> None:
        """Start a command, as soon as it is its turn."""
        if not self._launch_s:
            then()
        elif not self._shared:
            self._timeline.after(self._launch_s, then)
        elif self._free:
            self._free -= 1
            self._begin(then)
        else:
            self._queue.append(then)

    def _begin(self, then: Callable[[], object]) -> None:
        def done() -> None:
            if self._queue:
                self._begin(self._queue.popleft())
            else:
                self._free += 1
            then()

        self._timeline.after(self._launch_s, done)
