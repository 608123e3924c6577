"""A server that a launcher has started on this node: srun's or ssh's standard streams are all that it has of its owner.

    standard input    one line, the key of this farm; then nothing, and its end is the end of the server
    standard output   the line of any server that is ready

What it keeps (key, certificate, content store) is in a directory of its own on this node: home directories are often
shared by all nodes, and the servers would be in each other's way there. The key is read by a child, never by the
process that those which run commands come of.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, MutableMapping

from msgspec import structs

from rakefarm.config import ConfigError, ServerSettings
from rakefarm.security import certificate, keys
from rakefarm.security.aside import run_aside
from rakefarm.server.sandbox import SandboxError, ServerDirectory

WAYS = ("slurm", "ssh")
"""By what a server may have been launched, which says how it finds its address."""
LASTING = "/var/tmp"
"""Where the content store goes without a TMPDIR: mostly a disk, where /tmp may be memory (hier(7))."""
LONGEST_LINE_BYTES = 256
_DISCARD_PORT = 9  # RFC 863; nothing is sent


@contextlib.contextmanager
def own_place(environ: MutableMapping[str, str]) -> Iterator[str]:
    """A directory for this server alone, with the key from standard input in it; gone with the context. A TMPDIR that
    came with the owner's environment, and is not on this node, is forgotten. Raises ConfigError."""
    if not os.access(environ.get("TMPDIR", LASTING), os.W_OK | os.X_OK):
        del environ["TMPDIR"]
    try:
        place = ServerDirectory(environ.get("TMPDIR", LASTING))
    except SandboxError as error:
        raise ConfigError(str(error)) from error
    try:
        run_aside(lambda: _receive_key(_key_file(place.path)))
        yield place.path
    finally:
        place.remove()


def _key_file(place: str) -> str:
    return os.path.join(place, "keys")


def _receive_key(path: str) -> None:
    """In a child: the first line of standard input becomes the key file; not a byte more is read."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 1)
        line += data
        if not data or len(line) > LONGEST_LINE_BYTES:
            raise ConfigError("no key came on standard input, where a launcher sends one")
    keys.write_private(path, line)


def launched_settings(
    settings: ServerSettings, place: str, way: str, address: str | None, environ: Mapping[str, str]
) -> ServerSettings:
    """The settings with what being launched decides: key, certificate, store, and the address, unless one was named.
    Raises ConfigError."""
    return structs.replace(
        settings,
        address=own_address(way, environ) if address is None else address,
        key_file=_key_file(place),
        tls_certificate=certificate.own_certificate({"XDG_STATE_HOME": place}),
        tls_private_key="",
        tls_authority="",
        insecure=False,
        cache_directory=os.path.join(place, "store"),
    )


def own_address(way: str, environ: Mapping[str, str]) -> str:
    """This node's address on the network that its owner is on. Raises ConfigError.

    sshd says at which one it was reached (SSH_CONNECTION, ssh(1)), srun where it runs (SLURM_LAUNCH_NODE_IPADDR,
    srun(1)). The name of the node would do less well: in /etc/hosts it often stands beside 127.0.1.1.
    """
    if way == "ssh":
        words = environ.get("SSH_CONNECTION", "").split()
        if len(words) != 4:
            raise ConfigError("sshd has not told this node's address (SSH_CONNECTION); name one with -i")
        return words[2]
    owner = environ.get("SLURM_LAUNCH_NODE_IPADDR", "")
    try:
        found = socket.getaddrinfo(owner, _DISCARD_PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        family, kind, protocol, _, target = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"no address here from which {owner or 'an unnamed machine'} (SLURM_LAUNCH_NODE_IPADDR) is reached:"
            f" {error}; name one with -i"
        ) from error
