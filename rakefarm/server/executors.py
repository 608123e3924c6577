"""A worker's executors: idle ones are kept, new ones are asked of the nursery, dead ones forgotten.

Each has a directory of its own, `home`, in which the worker makes that of one action after another: it is all that the
executor and its commands may write to, so it has to be known when the executor confines itself.
"""

import contextlib
import itertools
import os
import select
import signal
import socket
import struct
import threading

from msgspec import Struct

from rakefarm.server.executor import run_nursery
from rakefarm.server.isolation.confinement import Confinement
from rakefarm.server.job import Ended, Job, NotYet, RecordError, receive_ended, receive_ready, send_job, send_stop
from rakefarm.server.sandbox import remove_tree

END_S = 5.0
"""How long a killed executor may take to be gone, with all that it ran."""
SOON_S = 0.02
"""Nobody looks after the client while a command has not run for longer than this."""
_TIMEVAL = struct.Struct("ll")


class ExecutorLost(Exception):
    """The executor died or could not be started: the farm could not run it, and the command did not fail."""


class Executor(Struct, frozen=True):
    """A process that runs one command at a time. `pid` is its process id as the worker sees it, `pidfd` stands for it
    also when it is dead and its number is somebody else's. `home` is its directory, `inside` where its commands find
    that, `home_descriptor` is open when `home` can be reached through nothing else, `place` is what it was made
    for, and `end` polls for its end."""

    socket: socket.socket
    pid: int
    pidfd: int
    place: str
    home: bytes
    inside: bytes
    home_descriptor: int | None
    end: select.poll

    def start(self, job: Job) -> None:
        """Have it run `job`. Raises ExecutorLost."""
        try:
            send_job(self.socket, job)
        except OSError as error:
            raise ExecutorLost(f"the executor is gone: {error.strerror}") from error

    def finish(self) -> tuple[Ended, list[int]]:
        """Wait for the end: how it went, and open files of the outputs too long to be in it. Raises ExecutorLost."""
        while (answer := self.finish_soon()) is None:
            pass
        return answer

    def finish_soon(self) -> tuple[Ended, list[int]] | None:
        """As `finish`, for a command that ends within SOON_S; None when it does not. One system call, where to watch
        for anything else meanwhile takes two."""
        try:
            answer = receive_ended(self.socket)
        except NotYet:
            return None
        except OSError as error:
            raise ExecutorLost(f"the executor is gone: {error.strerror}") from error
        except RecordError as error:
            raise ExecutorLost(f"the executor's answer can't be read: {error}") from error
        if answer is None:
            raise ExecutorLost("the executor was killed")
        return answer

    def stop(self) -> None:
        """End the command that it runs now; `finish` then tells so. Raises ExecutorLost."""
        try:
            send_stop(self.socket)
        except OSError as error:
            raise ExecutorLost(f"the executor is gone: {error.strerror}") from error

    def kill(self) -> None:
        """End the process, and with it, by the kernel or the nursery, all that it runs; then remove its directory."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self._ended(END_S)
        os.close(self.pidfd)
        self.socket.close()
        if self.home_descriptor is not None:
            os.close(self.home_descriptor)
        remove_tree(self.place)

    @property
    def alive(self) -> bool:
        """Of an idle one: whether its process is there."""
        return not self._ended(0.0)

    def _ended(self, seconds: float) -> bool:
        return bool(self.end.poll(seconds * 1000))


def _poll_end(pidfd: int) -> select.poll:
    end = select.poll()  # not select(2): a busy worker has descriptors beyond its 1024
    end.register(pidfd, select.POLLIN)
    return end


class Executors:
    """In a worker, made before its first thread: forks the nursery, then hands out executors, each with a directory
    below `directory`. At most `most_idle` are kept."""

    def __init__(
        self, close_in_nursery: list[socket.socket], confinement: Confinement, directory: str, most_idle: int
    ) -> None:
        self.confinement = confinement
        self._directory = directory
        self._most_idle = most_idle
        self._numbers = itertools.count()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.nursery_pid = os.fork()
        if not self.nursery_pid:
            try:
                self._control.close()
                for sock in close_in_nursery:
                    sock.close()
                run_nursery(theirs, confinement)
            finally:
                os._exit(1)
        theirs.close()
        self.nursery_end = os.pidfd_open(self.nursery_pid)
        """Readable once the nursery is dead: then there will be no executor any more."""
        self._lock = threading.Lock()
        self._idle: list[Executor] = []
        self._all: set[Executor] = set()

    def take(self) -> Executor:
        """An idle executor, or a new one. Raises ExecutorLost when none can be had."""
        with self._lock:
            while self._idle:
                executor = self._idle.pop()
                if executor.alive:
                    return executor
                self._all.discard(executor)
                executor.kill()
            executor = self._start()
            self._all.add(executor)
            return executor

    def _start(self) -> Executor:
        place = os.path.join(self._directory, f"executor-{next(self._numbers)}")
        ours, theirs = socket.socketpair()
        try:
            os.mkdir(place)
            os.chmod(place, 0o711 if self.confinement.uid else 0o700)
            socket.send_fds(self._control, [os.fsencode(place)], [theirs.fileno()])
            answer = self._control.recv(1024).decode("utf-8", "replace")
            theirs.close()
            if not answer.isdecimal():
                raise ExecutorLost(f"no executor can be started: {answer.lstrip('! ') or 'the nursery is gone'}")
            pid = int(answer)
            inside, home = receive_ready(ours)
            through = os.fsencode(place) if home is None else b"/proc/self/fd/%d" % home
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, int(SOON_S * 1e6)))
            pidfd = os.pidfd_open(pid)
            return Executor(ours, pid, pidfd, place, through, inside, home, _poll_end(pidfd))
        except (OSError, RecordError, ExecutorLost) as error:
            ours.close()
            theirs.close()
            remove_tree(place)
            if isinstance(error, ExecutorLost):
                raise
            problem = (error.strerror if isinstance(error, OSError) else "") or str(error)
            raise ExecutorLost(f"no executor can be started: {problem}") from error

    def give_back(self, executor: Executor) -> None:
        """Keep an executor that runs nothing for the next command, unless enough are kept already."""
        with self._lock:
            if len(self._idle) < self._most_idle:
                self._idle.append(executor)
                return
        self.drop(executor)

    def drop(self, executor: Executor) -> None:
        """End an executor that is lost or can't be trusted to be idle."""
        with self._lock:
            if executor not in self._all:
                return
            self._all.discard(executor)
        executor.kill()

    def end_all(self) -> None:
        """Kill every executor and the nursery."""
        with self._lock:
            for executor in self._all:
                executor.kill()
            self._all.clear()
            self._idle.clear()
        self._control.close()
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.waitpid(self.nursery_pid, 0)
        os.close(self.nursery_end)
