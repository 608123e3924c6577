"""A policy that may be anybody's, kept from doing harm: one that raises or dawdles is reported and replaced."""

import time
from collections.abc import Callable, Sequence

from rakefarm.events import Notice, Stream
from rakefarm.market import policy as market
from rakefarm.market.policies import DEFAULT, POLICIES

SLOW_S = 1e-3
REPLACED = f"is replaced by '{DEFAULT}' for the rest of this build"
"""What is said of a policy then, by which it is known that a build was not all its own."""
SLOW_CALLS = 20
"""So many calls in a row of more than a millisecond of processor time, and a policy is too slow."""


class PolicyGuard:
    """Runs a policy, or in its place the default for the rest of the build, which must not fail for it.

    `restart` tells a policy that comes in the middle what there is to do: the jobs that are not running, the hosts.
    """

    def __init__(
        self,
        view: market.View,
        make_policy: Callable[[market.View], market.Policy],
        stream: Stream,
        restart: Callable[[], market.SetStarted],
    ) -> None:
        self._view = view
        self._stream = stream
        self._restart = restart
        self._slow = 0
        self._policy = make_policy(view)
        self._is_default = make_policy is POLICIES[DEFAULT]

    def handle(self, event: market.Event) -> Sequence[market.Effect]:
        """What the policy wants done. An exception of the default policy is our own fault, and leaves."""
        if self._is_default:
            return self._policy.handle(event)
        started = time.thread_time()
        try:
            effects = self._policy.handle(event)
        except Exception as error:
            return self._replace(f"it raised {type(error).__name__}: {error}")
        self._slow = self._slow + 1 if time.thread_time() - started > SLOW_S else 0
        if self._slow > SLOW_CALLS:
            return [*effects, *self._replace("it takes more than a millisecond to decide")]
        return effects

    def _replace(self, why: str) -> Sequence[market.Effect]:
        name = type(self._policy).__name__
        text = f"the award policy {name} {REPLACED}: {why}"
        self._stream.emit(Notice(level="warning", text=text))
        self._policy, self._is_default = POLICIES[DEFAULT](self._view), True
        return self._policy.handle(self._restart())
