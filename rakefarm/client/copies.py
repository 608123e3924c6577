"""One action at two hosts: the first that brings a result wins, the other is stopped, and nothing of that one counts.

    broker ──enter──► start ──► connect ──► win     its result is the action's
                        │          │   └──► leave   nothing came of it
                        └──────────┴──────► Superseded, once the other has won

Whoever wins ends the other's half of its connection. The server then stops the command with all that it started,
removes its directory, gives the slot back, and closes: that end is what the loser's runner waits for, so that a build
does not end while anything of it still runs. A host that does not answer is cut off after `STOP_S`.
"""

import threading
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from rakefarm.client.farm import Member
from rakefarm.client.jobs import RemoteJob
from rakefarm.client.link import Link
from rakefarm.market import policy as market

STOP_S = 2.0
"""How long the end of a build waits for hosts to stop what has been superseded."""


class Superseded(Exception):
    """A copy of the action has won."""


class _Copy(Struct):
    started: bool = False
    link: Link | None = None


class Copies:
    """Where one repeatable action runs, or is about to. For any thread."""

    def __init__(self, told: "Callable[[Copies], None]") -> None:
        """`told` is called when others have been told to stop, without a lock."""
        self._told = told
        self._lock = threading.Lock()
        self._copies: dict[str, _Copy] = {}
        self._winner = ""

    def enter(self, host: str) -> None:
        """It was awarded to a host."""
        with self._lock:
            self._copies[host] = _Copy()

    def start(self, host: str, tell: Callable[[], None]) -> None:
        """Begin, and tell of it, unless it is over already. Raises Superseded."""
        with self._lock:
            self._check(host)
            self._copies[host].started = True
            tell()

    def connect(self, host: str, link: Link) -> None:
        """It runs over this link until `disconnect`. Raises Superseded."""
        with self._lock:
            self._check(host)
            self._copies[host].link = link

    def disconnect(self, host: str) -> None:
        """The link serves something else from now on, or nothing."""
        with self._lock:
            copy = self._copies.get(host)
            if copy is not None:
                copy.link = None

    def win(self, host: str) -> list[str]:
        """The result from this host is the action's: stop the others. Answers those that had begun. Raises Superseded
        when another was first."""
        with self._lock:
            self._check(host)
            self._winner = host
            del self._copies[host]
            losers = list(self._copies)
            begun = [loser for loser in losers if self._copies[loser].started]
            for copy in self._copies.values():
                if copy.link is not None:
                    copy.link.give_up()
        if losers:
            self._told(self)
        return begun

    def leave(self, host: str) -> bool:
        """Nothing came of the copy at this host, or of what it brought when it had won. Answers whether another may
        still be the action. Raises Superseded."""
        with self._lock:
            self._copies.pop(host, None)
            self._check(host)
            return bool(self._copies) and not self._winner

    def cut(self) -> list[str]:
        """Wait no longer for who was told to stop; answers the hosts that have not."""
        with self._lock:
            hung = {host: copy.link for host, copy in self._copies.items() if copy.link is not None}
            for link in hung.values():
                link.cut()
        return list(hung)

    @property
    def left(self) -> bool:
        """Whether any is still there."""
        return bool(self._copies)

    def _check(self, host: str) -> None:
        if self._winner and self._winner != host:
            raise Superseded(f"{self._winner} was first")


class Assignment(Struct, frozen=True):
    """An action for a runner: where, by which award, the action that hosts were asked for to decide it (0: none), and
    the link that holds a slot for it, if there is one. `copies` are those of a repeatable action."""

    job: RemoteJob
    member: Member
    award: market.Award
    terms: Mapping[str, float]
    quoted_as: int
    link: Link | None = None
    lease: int = 0
    copies: Copies | None = None

    @property
    def is_backup(self) -> bool:
        """It runs elsewhere already."""
        return isinstance(self.award, market.BackUp)


class Losers:
    """Those that were told to stop, and until when they may take. For any thread."""

    def __init__(self, changed: Callable[[], object]) -> None:
        """`changed` is called when there is another time in `due`, or one less."""
        self._changed = changed
        self._until: dict[Copies, float] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._until)

    def watch(self, copies: Copies) -> None:
        """Some of these have been told to stop."""
        with self._lock:
            if copies.left:
                self._until[copies] = time.monotonic() + STOP_S
        self._changed()

    def ended(self, copies: Copies) -> None:
        """One of these has stopped."""
        with self._lock:
            if not copies.left:
                self._until.pop(copies, None)
        self._changed()

    def due(self) -> list[float]:
        """When to call `cut_overdue` (monotonic seconds)."""
        with self._lock:
            return list(self._until.values())

    def cut_overdue(self, now: float) -> list[str]:
        """Cut off whose time is up; answers the hosts."""
        with self._lock:
            overdue = [copies for copies, until in self._until.items() if until <= now]
            for copies in overdue:
                del self._until[copies]
        return [host for copies in overdue for host in copies.cut()]
