"""ssh as a launcher: the user's own ssh, once a machine, for as long as the farm is up.

    rakefarm ══ standard input: the key, then open ══► ssh ══► sshd ══► rakeserver

When we end, however that is, the input ends, and with it the servers. The file of hosts has entries
like any list of hosts (see `rakefarm.hosts`), each with a user where ssh needs one:

    lab1                 a server at the address that ssh reaches lab1 by, its port picked by the system
    me@lab2:6238/4       at port 6238, with four slots
    ssh://lab3           on lab3's loopback; clients, too, come there through ssh
"""

import re
import shlex
import signal
import time
from collections.abc import Mapping, Sequence

from msgspec import Struct

from rakefarm.config import ConfigError
from rakefarm.hosts import SSH, UNIX, Host, HostSyntaxError, parse_host
from rakefarm.launch.launcher import Options
from rakefarm.launch.node import LaunchFailed, Node, server_script
from rakefarm.launch.streams import Ended, Line, Streams

CONNECT_S = 15
LONGEST_FILE_BYTES = 1 << 20
SSH_FAILED = 255
"""ssh(1), EXIT STATUS; any other is the remote command's."""
_OPTIONS = (
    "-T",
    "-o", "BatchMode=yes",  # there is nobody to ask
    "-o", f"ConnectTimeout={CONNECT_S}",
    "-o", "ServerAliveInterval=15",  # a machine that was switched off is noticed after 45 s
    "-o", "ControlMaster=no",  # others' connections would end with ours
)  # fmt: skip


class Destination(Struct, frozen=True):
    """Where ssh goes, and what server is wanted there."""

    host: Host
    tunnelled: bool = False


def parse_host_file(text: str) -> tuple[Destination, ...]:
    """The entries of a file of hosts, in order. Raises HostSyntaxError, with the line's number, also for one that comes
    twice, where a second server would only be in the first one's way."""
    found: dict[str, Destination] = {}
    for number, line in enumerate(text.split("\n"), 1):
        for entry in re.split(r"[\s,]+", line.partition("#")[0]):
            if not entry:
                continue
            try:
                if entry.startswith(UNIX):
                    raise HostSyntaxError(f"{entry[:60]!r} is a socket here, where a machine is wanted")
                destination = Destination(parse_host(SSH + entry.removeprefix(SSH)), entry.startswith(SSH))
                if destination.host.name in found:
                    raise HostSyntaxError(f"{destination.host.name} stands there twice; say how many slots: NAME/4")
            except HostSyntaxError as error:
                raise HostSyntaxError(f"line {number}: {error}") from error
            found[destination.host.name] = destination
    return tuple(found.values())


def read_host_file(path: str) -> tuple[Destination, ...]:
    """Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST_FILE_BYTES + 1)
        if len(data) > LONGEST_FILE_BYTES:
            raise ConfigError(f"--ssh {path}: longer than {LONGEST_FILE_BYTES} bytes, so no file of hosts")
        found = parse_host_file(data.decode())
    except OSError as error:
        raise ConfigError(f"--ssh {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--ssh {path}: not text in UTF-8") from error
    except HostSyntaxError as error:
        raise ConfigError(f"--ssh {path}: {error}") from error
    if not found:
        raise ConfigError(f"--ssh {path}: no host stands there; write one a line, as ssh takes it: lab1, or me@lab2")
    return found


class Ssh:
    """A launch by ssh."""

    def __init__(
        self, destinations: Sequence[Destination], options: Options, ours: str, environ: Mapping[str, str]
    ) -> None:
        self._destinations = destinations
        self.nodes = [Node(each.host.name, each.host.name if each.tunnelled else "") for each in destinations]
        self._options = options
        self.start_s = options.start_s
        self._ours = ours
        self._environ = environ
        self._began: float | None = None

    def command(self, destination: Destination) -> list[str]:
        """The words that start a server there."""
        host = destination.host
        options = ["-p", str(host.port or self._options.port)]
        options += ["--slots", str(host.slots)] if host.slots else []
        options += ["-i", "127.0.0.1"] if destination.tunnelled else []
        script = server_script(self._options.program, self._ours, "ssh", options, False)
        # Whatever the user's shell there is, it knows how to start this one.
        return ["ssh", *_OPTIONS, "--", host.name, f"exec /bin/sh -c {shlex.quote(script)}"]

    def start(self, streams: Streams, key_line: bytes) -> None:
        self._began = time.monotonic()
        for destination in self._destinations:
            try:
                streams.start(self.command(destination), self._environ, key_line)
            except OSError as error:
                raise LaunchFailed(f"ssh can't be executed: {error.strerror}") from error

    def hear(self, told: Line | Ended) -> None:
        node = self.nodes[told.child]
        if isinstance(told, Line):
            node.hear(told.text, told.error)
            return
        node.ended = "ssh failed" if told.status == SSH_FAILED else f"ended with status {told.status}"
        if all(each.ended for each in self.nodes):
            raise node.failure()

    def attend(self, now: float) -> None:
        """Nothing is ever due."""

    @property
    def nodes_since(self) -> float | None:
        return self._began

    def force(self, streams: Streams) -> None:
        """A server there has lost its standard input by then, as sshd closes it."""
        streams.signal(signal.SIGTERM)
