"""The answer to STATUS: how this server is at this moment."""

import os
import time

from rakefarm.market.needs import Refusal
from rakefarm.server.desk import Desk, job_of
from rakefarm.server.workplace import Workplace
from rakefarm.wire.messages import StatusReply, Task
from rakefarm.wire.status import Space

USUAL = Task(kind="compile", needs=(), input_bytes=0, work_s=0.0, memory_bytes=0)
"""What the price is told of: a compilation that nobody knows anything of."""


def status(work: Workplace, desk: Desk) -> StatusReply:
    """Now, by the shared pages, the clock and the file systems."""
    answer = desk.price(USUAL)
    load, roster = work.board.scoreboard.load(), work.board.scoreboard.roster
    return StatusReply(
        clock_s=time.time(),
        uptime_s=time.monotonic() - roster.started_at,
        price=0.0 if isinstance(answer, Refusal) else answer.price,
        declined=f"{answer.reason}: {answer.text}" if isinstance(answer, Refusal) else "",
        curve=desk.curve(job_of(USUAL), desk.look()) if isinstance(answer, Refusal) else answer.curve,
        memory=Space(int(load.memory_available), int(load.memory_total)),
        sandbox=_space(work.sandbox.path),
        cache=_space(work.settings.cache_directory),
        store=roster.store_use(),
        occupants=roster.occupants(),
    )


def _space(path: str | bytes) -> Space:
    try:
        there = os.statvfs(path)
    except OSError:
        return Space(0, 0)
    return Space(there.f_bavail * there.f_frsize, there.f_blocks * there.f_frsize)
