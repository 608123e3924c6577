"""A server on this machine for one build: a real one, on a Unix socket that only this user can connect to.

It is what `local` among the hosts means, and the whole farm where no host is named. Price, staging and sandbox are so
the very same code as on any host. What differs is what it shares with this user's other builds: the slots of this
machine, and make's job server.

It is tied to us by its standard input: however we end, that ends, and the server ends with all its commands.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm.hosts import LOCAL, UNIX, Host
from rakefarm.process import start_background

if TYPE_CHECKING:
    import subprocess

STOP_S = 5.0


class EmbeddedFailed(Exception):
    """The server could not be started; its own line on standard error says why."""


class Shares(Struct, frozen=True):
    """What commands on this machine share: so many slots, in the fifo at `path`, and the job servers (as in MAKEFLAGS)
    of which each needs a token, with the descriptors that they are named by."""

    slots: int
    path: str
    job_servers: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()


WaitReady = Callable[[], Host]
"""Where the server listens, as soon as it does; from any thread, any number of times. Raises EmbeddedFailed."""
EmbeddedServer = Callable[[Shares], contextlib.AbstractContextManager[WaitReady]]
"""Starts a server on this machine for as long as the context lasts."""


@contextlib.contextmanager
def embedded_server(environ: Mapping[str, str], shares: Shares) -> Iterator[WaitReady]:
    """A server for as long as the context lasts. It starts while we go on."""
    options = ["--until-eof", "--address", UNIX, "--slots", str(shares.slots), "--shared-slots", shares.path]
    for auth in shares.job_servers:
        options += ["--job-server", auth]
    variables = {**environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    server = start_background([sys.executable, "-m", "rakefarm.server", *options], variables, shares.descriptors)
    lock = threading.Lock()
    address: Host | None = None

    def wait_ready() -> Host:
        nonlocal address
        with lock:
            if address is None:
                assert server.stdout is not None
                line = server.stdout.readline().decode("utf-8", "replace")
                if not line.startswith(f"listening on {UNIX}"):
                    raise EmbeddedFailed("the embedded farm could not be started")
                path = line.removeprefix(f"listening on {UNIX}").partition(" slots=")[0]
                address = Host(LOCAL, way="unix", path=path)
            return address

    try:
        yield wait_ready
    finally:
        assert server.stdin is not None
        server.stdin.close()  # a signal would meet it while it starts, when it has no handlers yet
        if address is not None:
            _wait_gone(server)  # one that nobody has talked to yet runs nothing of ours, and ends by itself


def _wait_gone(server: "subprocess.Popen[bytes]") -> None:
    import subprocess

    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stdout is not None:
        server.stdout.close()  # only now: a thread may still read it
