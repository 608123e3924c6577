"""Host lists: what a person writes to name the servers of a farm.

The same grammar serves HOSTS lines, `--hosts`, `RAKEFARM_HOSTS` and the configuration files:

    list   = entries separated by commas, blanks or newlines; `#` starts a comment to the end of the line
    entry  = "unix:" PATH | ["ssh://" [USER "@"]] where [":" PORT] ["/" SLOTS]
    where  = host name | IPv4 address | "[" IPv6 address "]"

With `ssh://` the connection goes through the user's own ssh to that machine, and there to the port on loopback, where
the farm's server listens; ssh's own port is the business of ~/.ssh/config. PATH has no blank and no comma.

Pure text work: no name is looked up here. A name that passes is one the resolver can be asked for without a
surprise (`getaddrinfo` raises UnicodeError, not OSError, for an empty or over-long label).
"""

import re

from msgspec import Struct
from msgspec.structs import replace

LOCAL = "local"
"""This machine, when no port is named; `local:6238` is a host of that name."""
MAX_PORT = 65535
MAX_SLOTS = 4096
MAX_NAME_LENGTH = 253  # RFC 1035, 2.3.4, without the root label

UNIX = "unix:"
SSH = "ssh://"
_EXAMPLES = "for example lab1, lab1:6238, 192.0.2.7:6238, [::1]:6238 or lab1/4"
_SEPARATORS = re.compile(r"[\s,]+")
_ENTRY = re.compile(
    r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^\[\]:/]*))(?P<colon>:(?P<port>[^:/]*))?(?P<slash>/(?P<slots>[^/]*))?"
)
_NAME = re.compile(r"\w(?:[\w-]{0,61}\w)?(?:\.\w(?:[\w-]{0,61}\w)?)*\.?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_V6 = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?")


class HostSyntaxError(ValueError):
    """A host entry is malformed. `str()` is one line: what is wrong, and what a right one looks like."""


class Host(Struct, frozen=True):
    """One server: a name or address (IPv6 without its brackets), and what was written beside it.

    `port` is None when none was named (the default applies); `slots`, when named, bounds how many actions
    this client has there at once. `way` is how it is reached: "tcp", "ssh" (the name is what ssh takes), or "unix"
    (the name is for people, `path` the socket's).
    """

    name: str
    port: int | None = None
    slots: int | None = None
    way: str = "tcp"
    path: str = ""

    @property
    def is_local(self) -> bool:
        """This machine itself, which then bids like a host."""
        return self.name == LOCAL and self.port is None and self.way == "tcp"

    @property
    def address(self) -> str:
        """`name:port`, with an IPv6 address in brackets; the name alone when no port is known."""
        if self.way == "unix":
            return self.name
        user, at, host = self.name.rpartition("@")
        name = f"{user}{at}[{host}]" if ":" in host else self.name
        prefix = SSH if self.way == "ssh" else ""
        return prefix + (name if self.port is None else f"{name}:{self.port}")


def parse_host(text: str) -> Host:
    """One entry, with blanks around it allowed. Raises HostSyntaxError."""
    entry = text.strip()
    if not entry:
        raise HostSyntaxError(f"an empty host entry; write a host, {_EXAMPLES}")
    if _SEPARATORS.search(entry):
        raise _malformed(entry, "holds more than one entry, where one host is wanted")
    if entry.startswith(UNIX):
        path = entry.removeprefix(UNIX)
        if not path.startswith("/") or not path.isprintable():
            raise _malformed(entry, "names no socket by its full path")
        return Host(entry, way="unix", path=path)
    if entry.startswith(SSH):
        return _parse_ssh(entry)
    if "[" not in entry and entry.count(":") > 1:
        address, slash, rest = entry.partition("/")
        if _is_v6(address):
            raise HostSyntaxError(
                f"{quoted(entry)}: an IPv6 address needs brackets: [{address}]{slash}{rest}, "
                f"or [{address}]:6238 with a port"
            )
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise _malformed(entry, "is not a host entry")
    port: int | None = None
    if match["colon"]:
        port = parse_number(match["port"], MAX_PORT)
        if port is None:
            raise _malformed(entry, f"has a port that is not a number from 1 to {MAX_PORT}")
    slots: int | None = None
    if match["slash"]:
        slots = parse_number(match["slots"], MAX_SLOTS)
        if slots is None:
            raise _malformed(entry, f"has slots that are not a number from 1 to {MAX_SLOTS}")
    if match["v6"] is not None:
        if not _is_v6(match["v6"]):
            raise _malformed(entry, "has no IPv6 address between its brackets")
        return Host(match["v6"], port, slots)
    _check_name(entry, match["name"])
    return Host(match["name"], port, slots)


def _parse_ssh(entry: str) -> Host:
    user, at, rest = entry.removeprefix(SSH).rpartition("@")
    if at and not _USER.fullmatch(user):
        raise _malformed(entry, "has no user's name before its @")
    host = parse_host(rest)
    if host.way != "tcp":
        raise _malformed(entry, "names no host for ssh")
    return replace(host, name=user + at + host.name, way="ssh")


def parse_host_list(text: str) -> tuple[Host, ...]:
    """All entries of a list, in order; an exact repetition is dropped. Raises HostSyntaxError.

    A list without entries is empty, not an error.
    """
    hosts: dict[Host, None] = {}
    for line in text.split("\n"):
        for entry in _SEPARATORS.split(line.partition("#")[0]):
            if entry:
                hosts[parse_host(entry)] = None
    return tuple(hosts)


def with_default_port(host: Host, port: int) -> Host:
    """The host itself when it names a port, is a Unix socket or this machine, else the same host at `port`."""
    if host.port is not None or host.way == "unix" or host.is_local:
        return host
    return replace(host, port=port)


def parse_number(text: str, largest: int) -> int | None:
    """The decimal number from 1 to `largest` that `text` writes in ASCII digits, or None."""
    # int() alone would take '1_0' and the digits of other scripts, and raises for thousands of digits.
    digits = text.lstrip("0")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > len(str(largest)):
        return None
    number = int(digits)
    return number if number <= largest else None


def quoted(text: str, longest: int = 60) -> str:
    """Text for an error message: in quotes, on one line, printable, and cut when it is long."""
    return repr(text if len(text) <= longest else text[:longest] + "…")


def _check_name(entry: str, name: str) -> None:
    if not name:
        raise _malformed(entry, "names no host")
    if name.isascii() and name.isdecimal():
        raise _malformed(entry, "is a number, not a host; a port follows its host and a colon")
    if not name.strip("0123456789."):
        if not _is_v4(name):
            raise _malformed(entry, "is not an IPv4 address")
        return
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise _malformed(entry, "is not a host name")
    if not name.isascii():
        try:
            name.encode("idna")
        except UnicodeError:
            raise _malformed(entry, "is not a host name") from None


def _is_v4(text: str) -> bool:
    """Four numbers below 256 with dots between; none with a zero in front, which some read as octal."""
    parts = text.split(".")
    return len(parts) == 4 and all(0 < len(part) <= 3 and part == str(int(part)) and int(part) < 256 for part in parts)


def _is_v6(text: str) -> bool:
    if not _V6.fullmatch(text):
        return False
    from ipaddress import IPv6Address  # few hosts are written so, and every client starts

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _malformed(entry: str, what: str) -> HostSyntaxError:
    return HostSyntaxError(f"{quoted(entry)} {what}; write a host, {_EXAMPLES}")
