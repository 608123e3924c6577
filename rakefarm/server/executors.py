"""A worker's executors: idle ones are kept, new ones are asked of the nursery, dead ones forgotten."""

import contextlib
import os
import select
import signal
import socket
import struct
import threading

from msgspec import Struct

from rakefarm.server.executor import run_nursery
from rakefarm.server.job import Ended, Job, NotYet, RecordError, receive_ended, send_job

SOON_S = 0.02
"""Nobody looks after the client while a command has not run for longer than this."""
_TIMEVAL = struct.Struct("ll")


class ExecutorLost(Exception):
    """The executor died or could not be started: the farm could not run it, and the command did not fail."""


class Executor(Struct, frozen=True):
    """A process that runs one command at a time. `pid` is its process id as the worker sees it, `pidfd` stands for it
    also when it is dead and its number is somebody else's, and `end` polls it."""

    socket: socket.socket
    pid: int
    pidfd: int
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

    def kill(self) -> None:
        """End the process, and with it, by the kernel or the nursery, all that it runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)
        self.socket.close()

    @property
    def alive(self) -> bool:
        """Of an idle one: whether its process is there."""
        return not self.end.poll(0)


def _take_over(sock: socket.socket, pid: int) -> Executor:
    pidfd = os.pidfd_open(pid)
    end = select.poll()  # not select(2): a busy worker has descriptors beyond its 1024
    end.register(pidfd, select.POLLIN)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, int(SOON_S * 1e6)))
    return Executor(sock, pid, pidfd, end)


class Executors:
    """In a worker, made before its first thread: forks the nursery, then hands out executors."""

    def __init__(self, close_in_nursery: list[socket.socket]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.nursery_pid = os.fork()
        if not self.nursery_pid:
            try:
                self._control.close()
                for sock in close_in_nursery:
                    sock.close()
                run_nursery(theirs)
            finally:
                os._exit(1)
        theirs.close()
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
            ours, theirs = socket.socketpair()
            try:
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
                answer = self._control.recv(256).decode()
            except OSError as error:
                ours.close()
                raise ExecutorLost(f"no executor can be started: {error.strerror}") from error
            finally:
                theirs.close()
            if not answer.isdecimal():
                ours.close()
                raise ExecutorLost(f"no executor can be started: {answer.lstrip('! ') or 'the nursery is gone'}")
            try:
                executor = _take_over(ours, int(answer))
            except OSError as error:
                ours.close()
                raise ExecutorLost(f"the executor is gone: {error.strerror}") from error
            self._all.add(executor)
            return executor

    def give_back(self, executor: Executor) -> None:
        """Keep an executor that has answered for the next command."""
        with self._lock:
            self._idle.append(executor)

    def drop(self, executor: Executor) -> None:
        """End an executor that is lost or can't be trusted to be idle."""
        with self._lock:
            if executor in self._all:
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
