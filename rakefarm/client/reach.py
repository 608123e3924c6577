"""A way to a host: a TCP connection, a Unix socket, or the user's own ssh. What is said there is for the link."""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Mapping

from rakefarm import transport
from rakefarm.client.credentials import Credentials
from rakefarm.codes import Code
from rakefarm.hosts import Host
from rakefarm.process import start_filter
from rakefarm.security.local import is_trusted, peer_user, short_path
from rakefarm.security.network import is_loopback

SSH_CONNECT_S = 15.0
"""ssh does more than connect, perhaps over several machines."""
SSH_END_S = 2.0
TOLD_BYTES = 4096


class HostFailed(Exception):
    """A host can't be used; the text says why, for a person, and the code what to do."""

    def __init__(self, text: str, code: Code) -> None:
        super().__init__(text)
        self.code = code


class Way:
    """An open way to a host. `connect_s` is how long its first exchange may take."""

    def __init__(self, sock: socket.socket, connect_s: float) -> None:
        self.socket = sock
        self.connect_s = connect_s

    def explain(self, problem: str) -> str:
        """Why the first exchange failed, given what was seen of it here."""
        return problem

    def close(self) -> None:
        """Let go of all but the socket, which is the transport's."""


def reach(
    host: Host, environ: Mapping[str, str], credentials: Credentials, connect_s: float, network_s: float | None = None
) -> Way:
    """Raises HostFailed: within about `connect_s` seconds for each address, or because it may not be talked to;
    `network_s` is how long the host's kernel may take to accept, which a busy one does as fast as an idle one."""
    if host.way == "unix":
        return Way(_open_unix(host.path), connect_s)
    if host.way == "ssh":
        return _SshWay(host, environ, connect_s)
    return Way(_open_tcp(host, credentials, min(connect_s, network_s or connect_s)), connect_s)


def _open_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        with short_path(path) as reachable:
            sock.connect(reachable)
        user = peer_user(sock)
    except OSError as error:
        sock.close()
        raise HostFailed(f"{error.strerror}; is rakeserver running there?", Code.SOCKET) from error
    if not is_trusted(user):
        sock.close()
        raise HostFailed(f"user {user}, who is not us, listens there", Code.SOCKET)
    return sock


def _open_tcp(host: Host, credentials: Credentials, connect_s: float) -> socket.socket:
    assert host.port is not None
    try:
        # Given text, Python loads its tables of Unicode, to encode what is ASCII already.
        name = host.name.encode() if host.name.isascii() else host.name
        found = socket.getaddrinfo(name, host.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "no valid name"
        raise HostFailed(f"the name can't be resolved: {reason}", Code.NAME) from error
    problem, code = "no address", Code.NAME
    for family, kind, protocol, _, address in found:
        if credentials.context is None and not credentials.insecure and not is_loopback(str(address[0])):
            code = Code.UNPROVEN
            problem = (
                "it is on the network, and there is no key; make one and put it there with 'rakefarm key add-host',"
                " or say --insecure"
            )
            continue
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(connect_s)
        try:
            sock.connect(address)
            transport.configure(sock)
            sock.setblocking(True)
            return sock
        except TimeoutError:
            problem, code = f"no answer within {connect_s:g} s", Code.NO_ANSWER
        except OSError as error:
            problem, code = error.strerror or str(error), Code.ROUTE
            if isinstance(error, ConnectionRefusedError):
                problem, code = "connection refused; is rakeserver running there?", Code.REFUSED
        sock.close()
    raise HostFailed(problem, code)


class _SshWay(Way):
    """ssh, told to connect its standard streams with the server's port on that machine's loopback (ssh -W)."""

    def __init__(self, host: Host, environ: Mapping[str, str], connect_s: float) -> None:
        ours, theirs = socket.socketpair()
        self._told = os.memfd_create("ssh", os.MFD_CLOEXEC)
        options = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={int(SSH_CONNECT_S)}", "-W", f"127.0.0.1:{host.port}")
        try:
            self._pid = start_filter(("ssh", *options, "--", host.name), environ, theirs.fileno(), self._told)
        except OSError as error:
            ours.close()
            os.close(self._told)
            raise HostFailed(f"ssh can't be started: {error.strerror}", Code.SSH) from error
        finally:
            theirs.close()
        super().__init__(ours, max(connect_s, SSH_CONNECT_S))

    def explain(self, problem: str) -> str:
        """What ssh complained of, if it did."""
        said = os.pread(self._told, TOLD_BYTES, 0).decode("utf-8", "replace")
        lines = [line for line in re.split(r"[\r\n]+", said) if line.strip()]
        return f"ssh: {lines[-1][:200]}" if lines else problem

    def close(self) -> None:
        """End ssh, which has lost its standard input by now, and wait for it."""
        os.close(self._told)
        deadline = time.monotonic() + SSH_END_S
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)
            while not os.waitpid(self._pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    os.kill(self._pid, signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    return
                time.sleep(0.005)
