"""A weak client: what runs in it gets a share of one core, by the kernel's own bandwidth control (cgroups)."""

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator

from peers.ways import Absent

PERIOD_US = 100_000
_V1, _V2 = "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"


@contextlib.contextmanager
def share_of_core(share: float, core: int) -> Iterator[tuple[str, ...]]:
    """Words that have a command run with `share` of `core`, all that it starts included. Raises Absent."""
    first = os.path.exists(f"{_V1}/cgroup.procs")
    place = f"{_V1 if first else _V2}/rakefarm-peers-{secrets.token_hex(3)}"
    try:
        os.mkdir(place)
    except OSError as error:
        raise Absent(f"no control group can be made here: {error.strerror}") from error
    try:
        try:
            if first:
                _write(f"{place}/cpu.cfs_period_us", PERIOD_US)
                _write(f"{place}/cpu.cfs_quota_us", round(PERIOD_US * share))
            else:
                with open(f"{place}/cpu.max", "w", encoding="ascii") as file:
                    file.write(f"{round(PERIOD_US * share)} {PERIOD_US}")
        except OSError as error:
            raise Absent(f"control groups here have no limit of the processor: {error.strerror}") from error
        yield "sh", "-c", f'echo $$ > {place}/cgroup.procs && exec taskset -c {core} "$@"', "sh"
    finally:
        _remove(place)


def _write(path: str, value: int) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(str(value))


def _remove(place: str) -> None:
    """End what is left in there, and the group."""
    for _ in range(100):
        with open(f"{place}/cgroup.procs", encoding="ascii") as file:
            left = [int(line) for line in file]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break
        time.sleep(0.05)
    os.rmdir(place)
