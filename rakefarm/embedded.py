"""A farm on this machine for one build: a real server, on a Unix socket that only this user can connect to.

It is tied to us by its standard input: however we end, that ends, and the server ends with all its commands.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rakefarm.hosts import UNIX, Host
from rakefarm.process import start_background

if TYPE_CHECKING:
    import subprocess

NAME = "embedded"
STOP_S = 5.0


class EmbeddedFailed(Exception):
    """The server could not be started; its own line on standard error says why."""


@contextlib.contextmanager
def embedded_farm(environ: Mapping[str, str], slots: int = 0) -> Iterator[Host]:
    """A server for as long as the context lasts; answers its address. Raises EmbeddedFailed."""
    arguments = [
        sys.executable,
        "-m",
        "rakefarm.server",
        "--until-eof",
        "--address",
        UNIX,
    ]
    if slots:
        arguments += ["--slots", str(slots)]
    variables = {**environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    server = start_background(arguments, variables)
    try:
        assert server.stdout is not None
        line = server.stdout.readline().decode("utf-8", "replace")
        if not line.startswith(f"listening on {UNIX}"):
            raise EmbeddedFailed("the embedded farm could not be started")
        path = line.removeprefix(f"listening on {UNIX}").partition(" slots=")[0]
        yield Host(NAME, way="unix", path=path)
    finally:
        _stop(server)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    import subprocess

    server.send_signal(signal.SIGINT)
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            pipe.close()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
