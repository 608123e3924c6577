"""Executors: small single-threaded processes that run commands one at a time, and the nursery that forks them.

    worker (threads) ──SEQPACKET: "one more", with a socket──► nursery (one thread) ──fork──► executor
    worker's thread ══ that socket: Job, Ended ═══════════════════════════════════════════► executor ──► command

A worker has threads and must not fork, so its first act is to fork the nursery, which stays single-threaded
and forks an executor when one is first needed. Where the kernel allows it, each executor is the first process
of a PID namespace of its own: when it dies, for whatever reason, the kernel kills every process in there, and
`kill(-1)` after each action ends daemons that left their session. Elsewhere the executor is a *subreaper*
(orphans become its children) and walks its children instead.

Nobody is killed by name and nothing depends on a clean exit: an executor ends when its socket's peer is gone,
the nursery when its worker is, and the kernel takes the rest.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
from collections.abc import Callable, Collection
from typing import NoReturn

from rakefarm import process
from rakefarm.logs import logger
from rakefarm.server.job import INLINE_BYTES, Ended, Job, receive_job, send_ended

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
CLONE_NEWUSER = 0x10000000  # linux/sched.h
CLONE_NEWPID = 0x20000000
LAST_DESCRIPTOR = (1 << 31) - 1

_libc = ctypes.CDLL(None, use_errno=True)


# --- in the nursery -------------------------------------------------------------------------------------


def run_nursery(control: socket.socket) -> NoReturn:
    """In the nursery, for all its life: fork an executor for every socket that arrives on `control`.

    Answers each with the executor's process id as seen from the worker, in decimal.
    """
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    namespaced = pid_namespace_works()
    executors: dict[int, int] = {}  # process ids, by the descriptor (pidfd) that tells of their end
    poller = select.poll()
    poller.register(control, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        for ended in ready & executors.keys():
            poller.unregister(ended)
            os.close(ended)
            _bury(executors.pop(ended), executors.values())
        if control.fileno() in ready:
            pid = _start_executor(control, namespaced)
            if pid is None:
                break
            if pid:
                pidfd = os.pidfd_open(pid)
                executors[pidfd] = pid
                poller.register(pidfd, select.POLLIN)
    for pid in executors.values():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    end_children()
    os._exit(0)


def _start_executor(control: socket.socket, namespaced: bool) -> int | None:
    """Answer one message on `control`: the new executor's process id, 0 when there could be none, None at the end."""
    try:
        data, handed, _, _ = socket.recv_fds(control, 16, 1)
    except OSError:
        return None
    if not data or not handed:
        return None
    os.set_inheritable(handed[0], False)  # recv_fds ignores its flags; a command that had it could speak for us
    pid = 0
    try:
        pid = _fork_executor(handed[0], control, namespaced)
        reply = str(pid)
    except OSError as error:
        reply = f"! {error.strerror}"
    os.close(handed[0])
    with contextlib.suppress(OSError):
        control.send(reply.encode())
    return pid


def _bury(executor: int, others: Collection[int]) -> None:
    """Reap an executor, and end what it ran: without PID namespaces its commands are our children now."""
    os.waitpid(executor, 0)
    while strays := [pid for pid in _child_pids() if pid not in others]:
        for pid in strays:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def pid_namespace_works() -> bool:
    """Whether an executor can be the first process of a PID namespace of its own here, tried for real."""
    pid = os.fork()
    if not pid:
        entered = _enter_pid_namespace()
        inner = os.fork() if entered else 1
        if not inner:
            os._exit(0 if os.getpid() == 1 else 1)
        status = os.waitpid(inner, 0)[1] if entered else 1
        os._exit(1 if status else 0)
    return os.waitpid(pid, 0)[1] == 0


def probe_isolation() -> str:
    """What confines commands on this machine, tried for real: the word that is printed and sent to clients."""
    return "process+pid-namespace" if pid_namespace_works() else "process"


def _enter_pid_namespace() -> bool:
    """Make our next child the first process of a new PID namespace; with a user namespace where we aren't root."""
    if _libc.unshare(CLONE_NEWPID) == 0:
        return True
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWPID):
        return False
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError:
        return False
    return True


def _fork_executor(sock: int, control: socket.socket, namespaced: bool) -> int:
    """In the nursery: start an executor that talks on `sock`; answers its process id.

    With a namespace there is a process between us, since only a *child* of who enters one lives in it. It tells
    us the executor's id and ends; the executor then becomes our child, because we are a subreaper.
    """
    if not namespaced:
        pid = os.fork()
        return pid or _become_executor(sock, control, False)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if not between:
        try:
            entered = _enter_pid_namespace()
            pid = os.fork()
            if not pid:
                _become_executor(sock, control, entered)
            os.write(writer, str(pid).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(between, 0)
    answer = os.read(reader, 32)
    os.close(reader)
    if not answer:
        raise ChildProcessError("the executor could not be forked")
    return int(answer)


# --- in an executor -------------------------------------------------------------------------------------


def _become_executor(sock: int, control: socket.socket, namespaced: bool) -> NoReturn:
    status = 1
    try:
        control.detach()
        os.closerange(3, sock)
        os.closerange(sock + 1, LAST_DESCRIPTOR)
        with socket.socket(fileno=sock) as own:
            _execute_jobs(own, _end_namespace if namespaced and os.getpid() == 1 else _end_subreaped)
        status = 0
    except BaseException:
        logger.exception("an executor met a fault of its own")
    finally:
        os._exit(status)


def _execute_jobs(sock: socket.socket, end_strays: Callable[[], None]) -> None:
    """Run jobs until the worker is gone. Whatever a command left running is dead before its answer is sent."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    while _execute_next(sock, end_strays):
        pass


def _execute_next(sock: socket.socket, end_strays: Callable[[], None]) -> bool:
    """Run one job; nothing of it is held afterwards. False when the worker is gone."""
    job = receive_job(sock)
    if job is None:
        return False
    ended, descriptors = _execute(job, sock, end_strays)
    try:
        send_ended(sock, ended, descriptors)
    except OSError:
        return False
    for descriptor in descriptors:
        os.close(descriptor)
    return True


def _execute(job: Job, sock: socket.socket, end_strays: Callable[[], None]) -> tuple[Ended, list[int]]:
    try:
        os.chdir(job.directory)
        completed = process.run(
            job.command,
            job.environment,
            cancel=sock.fileno(),
            timeout_s=job.timeout_s or None,
            spill_directory=job.spill_directory,
            end_strays=end_strays,
        )
    except OSError as error:
        end_strays()
        return Ended("could_not_start", detail=error.strerror or str(error)), []
    match completed.ending:
        case process.Exited(status):
            outcome, number, detail = "exited", status, ""
        case process.Signalled(signal_number):
            outcome, number, detail = "signalled", signal_number, ""
        case process.TimedOut():
            outcome, number, detail = "timed_out", 0, ""
        case process.Cancelled():
            outcome, number, detail = "cancelled", 0, ""
        case process.CouldNotStart(text, unfit):
            outcome, number, detail = "unfit_command" if unfit else "could_not_start", 0, text
    descriptors, inline = [], []
    for capture in (completed.stdout, completed.stderr):
        spilled = capture.file()
        if capture.size > INLINE_BYTES and spilled is None:
            spilled = os.memfd_create("output", os.MFD_CLOEXEC)
            for piece in capture.pieces():
                os.write(spilled, piece)
        elif spilled is not None:
            spilled = os.dup(spilled)
        if spilled is not None:
            descriptors.append(spilled)
        inline.append(b"" if spilled is not None else b"".join(capture.pieces()))
    ended = Ended(
        outcome,
        number,
        detail,
        completed.elapsed_s,
        completed.cpu_s,
        completed.peak_memory_bytes,
        completed.stdout.size,
        completed.stderr.size,
        inline[0],
        inline[1],
    )
    completed.close()
    return ended, descriptors


def _end_namespace() -> None:
    """As process 1 of the namespace: kill everything else in it and wait until it is gone.

    Whoever loses its parent in here becomes our child, so without children we are alone, and need not have the kernel
    look through every process of the machine, which kill(-1) does.
    """
    try:
        os.waitpid(-1, os.WNOHANG)
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def _end_subreaped() -> None:
    """As a subreaper: kill our children until none is left; their own orphans become our children in turn."""
    end_children()


def end_children() -> None:
    """Kill and reap every child of this process, and theirs as they are orphaned to us."""
    while True:
        for pid in _child_pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _child_pids() -> list[int]:
    """Our children's process ids, from the kernel's own list (proc(5), /proc/PID/task/TID/children)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []
