"""A farm on this machine for one build: a real server, on loopback, on a port that the system picks.

It is tied to us by its standard input: however we end, that ends, and the server ends with all its commands.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rakefarm.hosts import Host, parse_host
from rakefarm.process import start_background

if TYPE_CHECKING:
    import subprocess

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
        "--port",
        "0",
        "--address",
        "127.0.0.1",
    ]
    if slots:
        arguments += ["--slots", str(slots)]
    variables = {**environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    server = start_background(arguments, variables)
    try:
        assert server.stdout is not None
        line = server.stdout.readline().decode("utf-8", "replace")
        if not line.startswith("listening on "):
            raise EmbeddedFailed("the embedded farm could not be started")
        yield parse_host(line.split()[2])
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
