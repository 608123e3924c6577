"""How far an experiment is: a bar with an estimate of its end on a terminal, a line now and then elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10


@contextlib.contextmanager
def shown(what: str) -> Iterator[Callable[[int, int], None]]:
    """Within, call what is given with how much is done, of how much."""
    console = Console(stderr=True)
    if not console.is_terminal:
        told = [-1]

        def say(done: int, total: int) -> None:
            tenth = LINES * done // max(total, 1)
            if tenth > told[0]:
                told[0] = tenth
                print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

        yield say
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, refresh_per_second=2)  # it takes processor time from what is measured
    task = bar.add_task(what, total=None)
    started = False  # with the first call: worker processes are forked before there is a thread

    def update(done: int, total: int) -> None:
        nonlocal started
        if not started:
            started = True
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        if started:
            bar.stop()
