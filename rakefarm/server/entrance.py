"""How clients come in here, decided once at the start: by which rule, with which certificate, through which socket.

Without a key (or an authority for certificates) only what this machine's users can reach is opened: a Unix socket, of
which the kernel says who comes, or loopback. A network address needs one, or `insecure`, which is shouted at
every start.
"""

import errno
import os
import socket
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm.config import ConfigError, ServerSettings
from rakefarm.hosts import UNIX
from rakefarm.logs import logger
from rakefarm.security import keys
from rakefarm.security.aside import run_aside
from rakefarm.security.local import short_path
from rakefarm.security.network import is_loopback

if TYPE_CHECKING:
    import ssl

BACKLOG = 1024
SOCKET_NAME = "socket"


class StartError(Exception):
    """The server can't start; one line says why and what to do."""


class Entrance(Struct, frozen=True):
    """The rule, and the files that it goes by, which each worker reads for itself: the listener holds no secret, since
    those that run commands come of it. `authentication` is one of wire.messages.AUTHENTICATIONS; `key_file` is empty
    without a key, the others without TLS."""

    authentication: str
    key_file: str = ""
    tls_certificate: str = ""
    tls_private_key: str = ""
    tls_authority: str = ""

    @property
    def proves(self) -> bool:
        """Whether a client has anything to prove over the network."""
        return bool(self.tls_certificate)

    def check(self) -> None:
        """See whether the files, which may have changed, can be used. Raises ConfigError."""
        if self.key_file:
            run_aside(lambda: _check_keys(self.key_file))
        if self.proves:
            run_aside(self.open_tls)

    def open_tls(self) -> "tuple[ssl.SSLContext | None, bytes]":
        """In a worker: what its connections are encrypted with, and the certificate in DER; None and empty without TLS.

        Raises ConfigError.
        """
        if not self.proves:
            return None, b""
        from rakefarm.security import tls

        context = tls.server_context(self.tls_certificate, self.tls_private_key, self.tls_authority)
        return context, tls.certificate_bytes(self.tls_certificate)


def prepare(settings: ServerSettings, environ: Mapping[str, str]) -> Entrance:
    """The rule for these settings, its files looked at and, where need be, made. Raises ConfigError."""
    if settings.address.startswith(UNIX):
        return Entrance("user")
    key_file = keys.find_path(settings.key_file, environ)
    if key_file or settings.tls_authority:
        return _encrypted(settings, environ, key_file)
    local = all(is_loopback(address) for address in _addresses(settings.address))
    if not local and not settings.insecure:
        raise ConfigError(
            f"{settings.address or 'every address'} can be reached from the network, and there is no key: make one with"
            " 'rakefarm key new', listen on loopback, or say --insecure and let anybody run programs here"
        )
    return Entrance("loopback" if local else "insecure")


def _encrypted(settings: ServerSettings, environ: Mapping[str, str], key_file: str) -> Entrance:
    from rakefarm.security import certificate, tls  # noqa: F401 - the workers share what is imported here

    if key_file:
        run_aside(lambda: _check_keys(key_file))
    path = settings.tls_certificate or certificate.own_certificate(environ)
    entrance = Entrance(
        "key" if key_file else "certificate", key_file, path, settings.tls_private_key, settings.tls_authority
    )
    entrance.check()
    return entrance


def _check_keys(path: str) -> None:
    if not keys.read_keys(path):
        raise ConfigError(f"{path}: there is no key in it; make one with: rakefarm key new")


def warn(entrance: Entrance, uids: str) -> None:
    """Say what an entrance without proof means, at every start; `uids` is whom root's server has commands run as."""
    user = f"user {os.geteuid()}" if os.geteuid() else f"users {uids}"
    if entrance.authentication == "insecure":
        logger.warning(
            "INSECURE: anybody who can reach this address can run programs here as %s, and read what they send;"
            " make a key with 'rakefarm key new'",
            user,
        )
    elif entrance.authentication == "loopback":
        logger.warning(
            "no key: every user of this machine can run programs here as %s; make a key with 'rakefarm key new'",
            user,
        )


def _addresses(name: str) -> list[str]:
    """The numbers that a name stands for; the name itself when there are none, which `open_socket` will tell."""
    try:
        found = socket.getaddrinfo(name or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return ["127.0.0.1"]
    return [str(each[4][0]) for each in found[:1]]


def open_socket(address: str, port: int, directory: str) -> socket.socket:
    """A listening socket: TCP, or Unix for `unix:PATH` (`unix:` alone: in `directory`). Raises StartError."""
    if address.startswith(UNIX):
        path = address.removeprefix(UNIX) or os.path.join(directory, SOCKET_NAME)
        return _open_unix(path)
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "no valid name"
        raise StartError(f"can't listen on {where}: {reason}; name an address of this machine with -i") from error
    family, kind, protocol, _, target = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        hint = {
            errno.EADDRINUSE: "; another program has it, choose another port with -p (0 lets the system pick)",
            errno.EACCES: "; choose a port of 1024 or above with -p",
            errno.EADDRNOTAVAIL: "; name an address of this machine with -i",
        }.get(error.errno or 0, "")
        raise StartError(f"can't listen on {where}: {error.strerror}{hint}") from error
    sock.setblocking(False)
    return sock


def _open_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        if not os.path.isabs(path):
            raise OSError(errno.EINVAL, "not a full path, such as unix:/run/user/1000/rakefarm")
        _remove_stale(path)
        before = os.umask(0o177)  # nobody can connect, not even before a chmod
        try:
            with short_path(path) as reachable:
                sock.bind(reachable)
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"can't listen on {UNIX}{path}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone. Raises OSError when something else is there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(errno.EEXIST, "something is there that is not a socket of ours")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            with short_path(path) as reachable:
                probe.connect(reachable)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "another server listens there")


def unix_path(address: str, directory: str) -> str:
    """The path of the socket that `open_socket` has made; empty for TCP."""
    if not address.startswith(UNIX):
        return ""
    return address.removeprefix(UNIX) or os.path.join(directory, SOCKET_NAME)
