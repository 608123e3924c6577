"""The workers that a listener owns: started, counted, replaced when they die, ended when it ends.

listener ──SEQPACKET pair a worker──► worker          listener forks workers, knows each by its pid
a worker's death is the end of its pair; the listener then reaps that pid, clears its cell, removes its
directory and starts another, after a pause that doubles while they die young. One more than the workers, if the
server has joined an engine, takes no connections: it runs the engine's leases.
"""

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable

from msgspec import Struct, field

from rakefarm.config import ServerSettings
from rakefarm.logs import logger
from rakefarm.server import handoff
from rakefarm.server.furnishing import BOOT_FAILED, Inherited, WayIn
from rakefarm.server.grants import Grants
from rakefarm.server.isolation.confinement import Confinement
from rakefarm.server.join.process import run_joined
from rakefarm.server.sandbox import ServerDirectory, remove_tree
from rakefarm.server.scoreboard import Scoreboard
from rakefarm.server.worker import exit_child, run_worker
from rakefarm.wire import codec

YOUNG_S = 2.0
PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0


class WorkersCannotStart(Exception):
    """A worker failed before it was ready: another would, too."""


class _Member(Struct):
    number: int
    pid: int
    channel: socket.socket
    started: float
    ready: bool = False
    handed: int = 0
    retiring: bool = False
    replaced: bool = False


class _Vacancy(Struct):
    number: int
    pause_s: float = PAUSE_S
    at: float = field(default_factory=time.monotonic)


class Pool:
    """In the listener. Not for threads."""

    def __init__(
        self,
        settings: ServerSettings,
        grants: Grants,
        scoreboard: Scoreboard,
        directory: ServerDirectory,
        confine: Callable[[int], Confinement],
        way_in: WayIn,
        close_in_worker: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._grants = grants
        self._scoreboard = scoreboard
        self._directory = directory
        self._confine = confine
        self._way_in = way_in
        self._close_in_worker = close_in_worker
        self._members: dict[int, _Member] = {}
        self._vacancies: list[_Vacancy] = []
        self._pauses: dict[int, float] = {}
        self._generation = settings.processes

    def channels(self) -> list[socket.socket]:
        """What to watch: readable means a worker is ready, or dead."""
        return [member.channel for member in self._members.values()]

    def start(self) -> None:
        """Start all workers."""
        codec.compile_all()
        gc.freeze()  # so that a collection in a worker does not copy the pages we share
        for number in range(self._generation):
            self._start_worker(number)

    def _is_joined(self, number: int) -> bool:
        """Whether it is the one that runs an engine's leases."""
        return number % self._generation >= self.settings.workers

    @property
    def can_take(self) -> bool:
        """Whether there is a worker for a connection; until then it had better wait in the system's queue."""
        return bool(self.choose())

    @property
    def ready(self) -> bool:
        """True once every worker has said so."""
        return bool(self._members) and all(member.ready for member in self._members.values())

    def _start_worker(self, number: int) -> None:
        ours, theirs = handoff.make_pair()
        pid = os.fork()
        if not pid:
            status = BOOT_FAILED
            try:
                ours.close()
                for member in self._members.values():
                    member.channel.close()
                self._close_in_worker()
                self._directory.close_in_child()
                inherited = Inherited(
                    number,
                    theirs,
                    self.settings,
                    self._grants,
                    self._scoreboard,
                    self._directory.worker_directory(number),
                    self._confine(number),
                    self._way_in,
                )
                status = (run_joined if self._is_joined(number) else run_worker)(inherited)
            except BaseException:
                logger.exception("worker %d met a fault of its own", number)
            finally:
                exit_child(status)
        theirs.close()
        self._members[number] = _Member(number, pid, ours, time.monotonic())

    def choose(self) -> list[_Member]:
        """Ready workers, the one with the fewest connections first."""

        def connections(member: _Member) -> int:
            return member.handed - self._scoreboard.read_cell(member.number).closed

        members = self._members.values()
        return sorted(
            [m for m in members if m.ready and not m.retiring and not self._is_joined(m.number)], key=connections
        )

    def hand_over(self, connection: socket.socket, ticket: int) -> bool:
        """Give `connection` to a worker, and close our copy in any case; False when none could take it."""
        with connection:
            for member in self.choose():
                if handoff.hand_over(member.channel, connection, ticket):
                    member.handed += 1
                    return True
        return False

    def attend(self) -> None:
        """Take what the workers said, reap the dead, fill vacancies. Raises WorkersCannotStart."""
        for member in list(self._members.values()):
            try:
                message = member.channel.recv(16)
            except BlockingIOError:
                continue
            except OSError:
                message = b""
            if message == handoff.READY:
                member.ready = True
            elif not message:
                self._bury(member)
        if self._scoreboard.draining:
            self._vacancies.clear()
        now = time.monotonic()
        for vacancy in [vacancy for vacancy in self._vacancies if vacancy.at <= now]:
            self._vacancies.remove(vacancy)
            self._start_worker(vacancy.number)

    def _bury(self, member: _Member) -> None:
        member.channel.close()
        del self._members[member.number]
        # Its end of the pair is closed, so it is dead or dying; a hung one must not hang us.
        with contextlib.suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(member.pid, 0)[1])
        self._scoreboard.clear_worker(member.number)
        self._grants.tokens.recover(member.number)
        remove_tree(self._directory.worker_directory(member.number))
        self._grants.slots.wake_waiters()
        if member.replaced or (member.retiring and self._scoreboard.draining):
            return
        if status == BOOT_FAILED and not member.ready:
            raise WorkersCannotStart(f"worker {member.number} can't start; its message is above")
        young = time.monotonic() - member.started < YOUNG_S and not member.retiring
        pause_s = min(self._pauses.get(member.number, PAUSE_S) * 2, LONGEST_PAUSE_S) if young else 0.0
        self._pauses[member.number] = max(pause_s, PAUSE_S)
        if not member.retiring:
            how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            self._scoreboard.add_fault(self.settings.price.fault_half_life_s)
            logger.warning("worker %d (process %d) died: %s; starting another", member.number, member.pid, how)
        self._vacancies.append(_Vacancy(member.number, pause_s, time.monotonic() + pause_s))

    @property
    def next_vacancy(self) -> float | None:
        """When the next worker is due (monotonic seconds), if one is."""
        return min((vacancy.at for vacancy in self._vacancies), default=None)

    def retire_all(self, settings: ServerSettings | None = None) -> None:
        """Have every worker end once its commands have; with `settings`, others start with those, and need not wait:
        there are two sets of numbers, which take turns."""
        if settings is not None:
            self.settings = settings
        busy = {*self._members, *(vacancy.number for vacancy in self._vacancies)}
        for member in self._members.values():
            successor = (member.number + self._generation) % (2 * self._generation)
            if settings is not None and not member.replaced and successor not in busy:
                member.replaced = True
                self._vacancies.append(_Vacancy(successor))
            member.retiring = True
            with contextlib.suppress(OSError):
                member.channel.send(handoff.DRAIN)

    @property
    def empty(self) -> bool:
        """True when no worker is left."""
        return not self._members

    def end(self, patience_s: float = 3.0) -> None:
        """End every worker now: close the pairs, wait a little, kill what is left."""
        deadline = time.monotonic() + patience_s
        for member in self._members.values():
            member.channel.close()
        for member in self._members.values():
            while not os.waitpid(member.pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    os.kill(member.pid, signal.SIGKILL)
                    os.waitpid(member.pid, 0)
                    break
                time.sleep(0.005)
        self._members.clear()
