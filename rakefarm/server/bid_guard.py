"""A bid that may be anybody's, kept from doing harm: one that raises, dawdles or asks the impossible is reported, once
for the whole server, and replaced by the default."""

import math
import time
from collections.abc import Callable, Mapping

from rakefarm.config import ConfigError
from rakefarm.logs import logger
from rakefarm.market.bid import Situation, TermsOf, finish_terms
from rakefarm.market.bids import BIDS, DEFAULT
from rakefarm.plugins import find_plugin
from rakefarm.server.scoreboard import Scoreboard

ENTRY_POINTS = "rakefarm.bids"
SLOW_S = 1e-3
BLOCKING_S = 0.05
SLOW_CALLS = 20
"""So many calls in a row of more than a millisecond of processor time, or that stand still for longer than a busy
machine makes anybody wait, and a bid is too slow: every quote waits for it."""
DEAREST = 1e9
"""A client takes no price of this or more for an answer."""
MOST_TERMS = 32


def find_bid(name: str) -> TermsOf:
    """The bid called `name`, a package's name for one or `FILE.py:NAME`. Raises ConfigError."""
    return find_plugin("bid", name, BIDS, ENTRY_POINTS, _checked)


def _checked(found: object, name: str) -> TermsOf:
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            raise ConfigError(f"bid {name}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"bid {name}: is not a function that takes a situation, nor a class of such")
    return found


class BidGuard:
    """The terms of one worker's prices. For any thread."""

    def __init__(self, name: str, scoreboard: Scoreboard) -> None:
        self._name = name
        self._board = scoreboard
        self._slow = 0
        self._own: Callable[[Situation], object] = finish_terms
        try:
            self._own = find_bid(name)
        except ConfigError as error:  # the listener has found it, but a file may change
            self._replace(str(error))

    def __call__(self, now: Situation) -> Mapping[str, float]:
        """The terms of a price."""
        if self._own is finish_terms or self._board.bid_replaced:
            return finish_terms(now)
        started, cpu_started = time.monotonic(), time.thread_time()
        try:
            terms = _valid(self._own(now))
        except (Exception, SystemExit) as error:
            self._replace(f"{type(error).__name__}: {error}")
            return finish_terms(now)
        slow = time.thread_time() - cpu_started > SLOW_S or time.monotonic() - started > BLOCKING_S
        self._slow = self._slow + 1 if slow else 0
        if self._slow > SLOW_CALLS:
            self._replace("it takes more than a millisecond")
        return terms

    def _replace(self, why: str) -> None:
        if self._board.replace_bid():
            text = " ".join(why.split())[:300]
            logger.warning(
                "the bid %r is replaced by %r until the configuration is read again: %s", self._name, DEFAULT, text
            )


def _valid(terms: object) -> dict[str, float]:
    """Terms that may be sent. Raises ValueError for any that may not."""
    if not isinstance(terms, Mapping):
        raise ValueError(f"its answer is a {type(terms).__name__}, not terms by name")
    found = {}
    for name, value in terms.items():
        if not (isinstance(name, str) and 0 < len(name) <= 40 and name.isascii() and name.isprintable()):
            raise ValueError(f"{name!r} is no name of a term")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"the term {name} is {value!r}")
        found[name] = float(value)
    price = sum(found.values())
    if not 0.0 < price < DEAREST or len(found) > MOST_TERMS:
        raise ValueError(f"{len(found)} terms make a price of {price:g}")
    return found
