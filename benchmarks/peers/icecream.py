"""icecream with its three daemons, in two network namespaces with a cable of the kernel's own (veth) between them.

It needs two: a daemon takes what it does for a client of its own machine for local. Traps: it compiles here again
whatever printed a warning (ICECC_CARET_WORKAROUND=0), and its first job sends the whole compiler, so one compile goes
ahead until it has run on the other side.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

from farm import ENVIRONMENT
from peers.ways import Absent, Way, find, process, wait_listening

HERE, THERE = "10.119.1.1", "10.119.1.2"
PORT = 8765
PATIENCE_S = 120.0


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise Absent(f"icecream: ip {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def _namespaces() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Words that lead into either of two that see each other. Raises Absent."""
    find("ip")
    mark = secrets.token_hex(3)
    names = f"rakefarm-ice-a-{mark}", f"rakefarm-ice-b-{mark}"
    with contextlib.ExitStack() as undoing:
        for name in names:
            _ip("netns", "add", name)
            undoing.callback(_ip, "netns", "delete", name)
        ends = f"rfa{mark}", f"rfb{mark}"
        _ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for name, end, address in zip(names, ends, (HERE, THERE), strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield ("ip", "netns", "exec", names[0]), ("ip", "netns", "exec", names[1])


@contextlib.contextmanager
def icecream(slots: int) -> Iterator[Way]:
    """Through icecc, with one server of `slots`. Raises Absent."""
    scheduler, daemon = find("icecc-scheduler"), find("iceccd")
    find("icecc")
    with contextlib.ExitStack() as stack:
        here, there = stack.enter_context(_namespaces())
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-ice-"))
        os.chmod(place, 0o755)
        with contextlib.suppress(LookupError):  # its daemons drop to a user of their own
            shutil.chown(place, "icecc")
        mark = f"rakefarm-{secrets.token_hex(3)}"
        stack.enter_context(process([*there, scheduler, "-n", mark, "-p", str(PORT)]))
        wait_listening(THERE, PORT, there)
        pids = []
        for around, name, options in ((there, "there", ["-m", str(slots)]), (here, "here", ["--no-remote", "-m", "1"])):
            words = [
                *around, daemon, "-n", mark, "-s", f"{THERE}:{PORT}", "-N", f"{mark}-{name}", "-b", f"{place}/{name}",
                "-l", f"{place}/{name}.log", *options,
            ]  # fmt: skip
            socket_of = {"ICECC_TEST_SOCKET": f"{place}/{name}.socket"}
            pids.append(stack.enter_context(process(words, socket_of)))
        environment = {
            "ICECC_TEST_SOCKET": f"{place}/here.socket",
            "ICECC_CARET_WORKAROUND": "0",
            "ICECC_PREFERRED_HOST": f"{mark}-there",
        }
        way = Way("icecream", "icecc", environment, lambda: pids[1:], around=here)
        _send_compiler(way, place)
        yield way


def _send_compiler(way: Way, place: str) -> None:
    """Compile until it is done on the other side, for C and for C++. Raises Absent."""
    deadline = time.monotonic() + PATIENCE_S
    log = os.path.join(place, "client.log")
    variables = {**ENVIRONMENT, **way.environment, "ICECC_DEBUG": "debug", "ICECC_LOGFILE": log}
    for name, compiler in (("a.c", "gcc"), ("a.cc", "g++")):
        with open(os.path.join(place, name), "w", encoding="ascii") as file:
            file.write("int a;\n")
        while True:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(log)
            words = [*way.around, way.launcher, compiler, "-c", name]
            done = subprocess.run(words, cwd=place, env=variables, capture_output=True, text=True)
            told = ""
            with contextlib.suppress(FileNotFoundError), open(log, encoding="utf-8", errors="replace") as file:
                told = file.read()
            if not done.returncode and f"Have to use host {THERE}" in told and "local build forced" not in told:
                break
            if time.monotonic() > deadline:
                raise Absent(f"icecream compiles nothing on the other side: {told.strip().splitlines()[-1:]}")
            time.sleep(0.5)
