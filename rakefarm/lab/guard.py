"""A policy under test: it may be a student's, and it may hang, raise, or cheat, each of which ends the run in one line.

A policy has its time and its chance from the view. What else it could ask is watched for: calls into `time`,
`datetime`, `random`, `os.urandom` and numpy's generators are seen by the interpreter's profiling hook, however they
were imported.
The policies that come with rakefarm are not watched: a test holds their sources to that.
"""

import contextlib
import gc
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from rakefarm.market import policy as market
from rakefarm.market.policies import POLICIES

PATIENCE_S = 5.0
"""Of real time, for one event."""
READS = frozenset(
    {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "thread_time"}
)


class PolicyFailed(Exception):
    """A policy can't be judged; the text is one line that names it."""


class GuardedPolicy:
    """Makes a policy and hands it events, watching."""

    def __init__(
        self,
        name: str,
        make_policy: Callable[[market.View], market.Policy],
        view: market.View,
        stopwatch: Callable[[], float],
    ) -> None:
        self.planning_s = 0.0
        self.slowest_s = 0.0
        self._name = name
        self._stopwatch = stopwatch
        self._view_random = view.random
        self._own = POLICIES.get(name) is make_policy
        with self._watched("when it was made"):
            self._policy = make_policy(view)

    def handle(self, event: market.Event) -> Sequence[market.Effect]:
        """What the policy wants done. Raises PolicyFailed."""
        began = self._stopwatch()
        if self._own:
            effects = self._policy.handle(event)
        else:
            with self._watched(f"at {type(event).__name__}"):
                effects = self._policy.handle(event)
            self._check(effects, event)
        took_s = self._stopwatch() - began
        self.planning_s += took_s
        self.slowest_s = max(self.slowest_s, took_s)
        return effects

    def _check(self, effects: object, event: market.Event) -> None:
        if not isinstance(effects, list | tuple) or not all(isinstance(each, market.Effect) for each in effects):
            raise PolicyFailed(f"policy {self._name}: answered {effects!r:.60} to {type(event).__name__}, not effects")

    @contextlib.contextmanager
    def _watched(self, when: str) -> Iterator[None]:
        if self._own:
            yield
            return
        caught: list[str] = []
        ours = getattr(self._view_random, "__code__", None)

        def see(frame: FrameType, kind: str, called: object) -> None:
            # The view draws from the seed's chance itself.
            if kind == "c_call" and not caught and frame.f_code is not ours and (what := _forbidden(called)):
                caught.append(what)

        try:
            with _alarm(), _uncollected():
                sys.setprofile(see)
                try:
                    yield
                finally:
                    sys.setprofile(None)
        except _Hung:
            raise PolicyFailed(f"policy {self._name}: took more than {PATIENCE_S:g} s {when}") from None
        except Exception as error:  # it may raise anything
            raise PolicyFailed(f"policy {self._name}: raised {type(error).__name__} {when}: {error}") from error
        if caught:
            raise PolicyFailed(f"policy {self._name}: called {caught[0]} {when}; time and chance come from the view")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """What a garbage collection calls (finalisers, callbacks of other libraries) is not of the policy's doing."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class _Hung(BaseException):
    """It takes too long; not an Exception, since a policy may catch all of those."""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """Signals reach the main thread alone; elsewhere nobody watches for what hangs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _forbidden(called: object) -> str:
    """What is called, if only who cheats would call it."""
    name, owner = getattr(called, "__name__", ""), getattr(called, "__self__", None)
    if getattr(called, "__module__", None) == "time" and name in READS:
        return f"time.{name}"
    if isinstance(owner, type) and owner.__module__ == "datetime" and name in ("now", "utcnow", "today"):
        return f"{owner.__name__}.{name}"
    if isinstance(owner, random.Random) or type(owner).__module__.startswith("numpy.random"):
        return f"random.{name}"
    return "os.urandom" if name == "urandom" else ""
