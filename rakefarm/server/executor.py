"""Executors: small single-threaded processes that run commands one at a time, and the nursery that forks them.

    worker (threads) ──SEQPACKET: a directory, with a socket──► nursery (one thread) ──fork──► executor
    worker's thread ══ that socket: Job, Ended ═══════════════════════════════════════════► executor ──► command

A worker has threads and must not fork, so its first act is to fork the nursery, which stays single-threaded
and forks an executor when one is first needed. An executor confines itself once, to the directory that it was made
for (see `isolation`), and says that it is ready; every command that it starts is then confined like it, at no further
cost. Where the kernel allows it, each executor is the first process of a PID namespace of its own: when it dies, for
whatever reason, the kernel kills every process in there, and `kill(-1)` after each action ends daemons that left their
session. Elsewhere the executor is a *subreaper* (orphans become its children) and walks its children instead.

Nobody is killed by name and nothing depends on a clean exit: an executor ends when its socket's peer is gone,
the nursery when its worker is, a worker when its nursery is, and the kernel takes the rest.
"""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Collection
from typing import NoReturn

from rakefarm import process
from rakefarm.capture import Capture, spill_to_memory
from rakefarm.logs import logger
from rakefarm.server.isolation import kernel
from rakefarm.server.isolation.confinement import NAMESPACES, PROCESS, Confinement
from rakefarm.server.job import (
    INLINE_BYTES,
    Ended,
    Job,
    receive_job,
    send_ended,
    send_ready,
    send_unready,
    take_stop,
)
from rakefarm.words import split_placed

LAST_DESCRIPTOR = (1 << 31) - 1
PATH_BYTES = 4096


# --- in the nursery -------------------------------------------------------------------------------------


def run_nursery(control: socket.socket, confinement: Confinement) -> NoReturn:
    """In the nursery, for all its life: fork an executor for every socket that arrives on `control`, confined to the
    directory that the message names.

    Answers each with the executor's process id as seen from the worker, in decimal.
    """
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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
            pid = _start_executor(control, confinement)
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


def _start_executor(control: socket.socket, confinement: Confinement) -> int | None:
    """Answer one message on `control`: the new executor's process id, 0 when there could be none, None at the end."""
    try:
        data, handed, _, _ = socket.recv_fds(control, PATH_BYTES, 1)
    except OSError:
        return None
    if not data or not handed:
        return None
    os.set_inheritable(handed[0], False)  # recv_fds ignores its flags; a command that had it could speak for us
    pid = 0
    try:
        pid = _fork_executor(handed[0], control, os.fsdecode(data), confinement)
        reply = str(pid)
    except OSError as error:
        reply = f"! {error.strerror or error}"
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


def _fork_executor(sock: int, control: socket.socket, place: str, confinement: Confinement) -> int:
    """In the nursery: start an executor that talks on `sock`; answers its process id.

    With a namespace there is a process between us, since only a *child* of who enters one lives in it. It tells
    us the executor's id and ends; the executor then becomes our child, because we are a subreaper.
    """
    if not confinement.own_processes:
        pid = os.fork()
        return pid or _become_executor(sock, control, place, confinement)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if not between:
        try:
            confinement.detach()
            pid = os.fork()
            if not pid:
                _become_executor(sock, control, place, confinement)
            os.write(writer, str(pid).encode())
        except OSError as error:
            os.write(writer, f"! {error.strerror or error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(between, 0)
    answer = os.read(reader, 512).decode("utf-8", "replace")
    os.close(reader)
    if not answer.isdecimal():
        raise ChildProcessError(answer.lstrip("! ") or "the executor could not be forked")
    return int(answer)


# --- in an executor -------------------------------------------------------------------------------------


def _become_executor(sock: int, control: socket.socket, place: str, confinement: Confinement) -> NoReturn:
    status = 1
    try:
        control.detach()
        os.closerange(3, sock)
        os.closerange(sock + 1, LAST_DESCRIPTOR)
        with socket.socket(fileno=sock) as own:
            end_strays = _end_strays(confinement)
            if _confine(own, place, confinement):
                _execute_jobs(own, end_strays)
        status = 0
    except BaseException:
        logger.exception("an executor met a fault of its own")
    finally:
        os._exit(status)


def _confine(sock: socket.socket, place: str, confinement: Confinement) -> bool:
    """Give up what commands must not have, and say that we are ready; or why we never will be."""
    try:
        inside = confinement.enter(place)
        own = confinement.rank >= NAMESPACES and confinement.box_bytes
        home = os.open(inside, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if own else None
    except OSError as error:
        send_unready(sock, error.strerror or str(error))
        return False
    send_ready(sock, os.fsencode(inside), home)
    if home is not None:
        os.close(home)
    return True


def _end_strays(confinement: Confinement) -> Callable[[], None] | None:
    """What ends all that a command has left; None at the level at which nothing does."""
    if confinement.rank < PROCESS:
        return None
    if os.getpid() == 1:
        return _end_namespace
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    # Opened now: once confined we may not.
    children = os.open(_CHILDREN.format(os.getpid()), os.O_RDONLY | os.O_CLOEXEC)
    return lambda: end_children(children)


def _execute_jobs(sock: socket.socket, end_strays: Callable[[], None] | None) -> None:
    """Run jobs until the worker is gone. Whatever a command left running is dead before its answer is sent."""
    while _execute_next(sock, end_strays):
        pass


def _execute_next(sock: socket.socket, end_strays: Callable[[], None] | None) -> bool:
    """Run one job; nothing of it is held afterwards. False when the worker is gone."""
    job = receive_job(sock)
    if job is None:
        return False
    ended, descriptors = _execute(job, sock, end_strays)
    if ended.outcome == "stopped" and not take_stop(sock):
        return False
    try:
        send_ended(sock, ended, descriptors)
    except OSError:
        return False
    for descriptor in descriptors:
        os.close(descriptor)
    return True


def _execute(job: Job, sock: socket.socket, end_strays: Callable[[], None] | None) -> tuple[Ended, list[int]]:
    streams = Capture(spill_to_memory, job.stdout_most), Capture(spill_to_memory, job.stderr_most)
    try:
        os.chdir(job.directory)
        completed = _run_placed(job, sock, streams, end_strays) or process.run(
            job.command,
            job.environment,
            cancel=sock.fileno(),
            timeout_s=job.timeout_s or None,
            streams=streams,
            end_strays=end_strays,
        )
    except OSError as error:
        if end_strays is not None:
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
            outcome, number, detail = "stopped", 0, ""
        case process.CouldNotStart(text, unfit):
            outcome, number, detail = "unfit_command" if unfit else "could_not_start", 0, text
    descriptors, inline = [], []
    for capture in streams:
        if capture.cut:
            capture.mark_cut(b"\n[rakefarm: cut here: %d more bytes were written]\n" % capture.cut)
        spilled = capture.file()
        if capture.size > INLINE_BYTES and spilled is None:
            spilled = spill_to_memory()
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


def _run_placed(
    job: Job, sock: socket.socket, streams: tuple[Capture, Capture], end_strays: Callable[[], None] | None
) -> process.Completed | None:
    """Run a command that only goes to a directory and becomes a program there, without the shell that would do so; None
    when it is another one, or the shell is to say what is wrong with it."""
    placed = split_placed(job.command, job.directory)
    if placed is None or job.environment.get(b"PWD") != job.directory:
        return None
    try:
        os.chdir(placed.directory)
    except OSError:
        return None
    completed = process.run(
        job.command,
        {**job.environment, **placed.variables},
        words=placed.words,
        cancel=sock.fileno(),
        timeout_s=job.timeout_s or None,
        streams=streams,
        end_strays=end_strays,
        on_start=lambda _: streams[0].write(placed.said),
    )
    if isinstance(completed.ending, process.CouldNotStart):
        os.chdir(job.directory)
        return None
    return completed


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


_CHILDREN = "/proc/self/task/{}/children"
"""The kernel's own list of a process's children: see proc(5)."""


def end_children(children: int | None = None) -> None:
    """Kill and reap every child of this process, and theirs as they are orphaned to us. `children` is a descriptor of
    our list of them, for who may not open that any more."""
    while True:
        for pid in _child_pids(children):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _child_pids(children: int | None = None) -> list[int]:
    """Our children's process ids."""
    try:
        with open(
            _CHILDREN.format(os.getpid()) if children is None else children, "rb", closefd=children is None
        ) as file:
            if children is not None:
                file.seek(0)
            return [int(word) for word in file.read().split()]
    except OSError:
        return []
