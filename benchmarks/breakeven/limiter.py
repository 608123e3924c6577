"""A slower processor: stops and continues processes so that they get a share of their time, where no cgroup can.

A command that computes all the time is let run for its share of every PERIOD_S. A client that mostly waits has credit
meanwhile, as under a quota of a cgroup: it is stopped only when it has used more than its share so far.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

PERIOD_S = 0.02
CREDIT_S = 0.01
"""How much processor time may be used ahead."""


@contextlib.contextmanager
def limited(process: "subprocess.Popen[str]", share: float, waits: bool) -> Iterator[None]:
    """While this lasts, the process, a leader of its group, has this share of a processor. `waits`: it waits
    for others most of the time; else it and its children compute."""
    if share >= 1.0:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_by_credit if waits else _by_turns, args=(process.pid, share, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _signal(process.pid, signal.SIGCONT)


def _by_turns(leader: int, share: float, ended: threading.Event) -> None:
    while not ended.is_set():
        _signal(leader, signal.SIGCONT)
        time.sleep(PERIOD_S * share)
        _signal(leader, signal.SIGSTOP)
        ended.wait(PERIOD_S * (1.0 - share))
        if not _alive(leader):
            return


def _by_credit(leader: int, share: float, ended: threading.Event) -> None:
    began = time.monotonic()
    while not ended.wait(PERIOD_S / 10):
        if not _alive(leader):
            return
        used = _used(leader) + _reaped(leader)
        ahead = used - share * (time.monotonic() - began)
        if ahead > CREDIT_S:
            _signal(leader, signal.SIGSTOP)
            ended.wait(ahead / share)
            _signal(leader, signal.SIGCONT)


def _used(pid: int) -> float:
    """Processor seconds of a process and of all below it that live."""
    clock = (~pid << 3) | 2  # CPUCLOCK_SCHED of a process: clock_getcpuclockid(3)
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
        return time.clock_gettime(clock) + sum(_used(int(child)) for child in children)
    except OSError:
        return 0.0


def _reaped(pid: int) -> float:
    """Processor seconds of its children that have ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[13]) + int(words[14])) / os.sysconf("SC_CLK_TCK")  # cutime, cstime: proc(5)


def _signal(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
