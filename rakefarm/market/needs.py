"""What an action may need of a host, and why a host that lacks it does not bid."""

from collections.abc import Sequence

from msgspec import Struct


class Refusal(Struct, frozen=True):
    """Why a server does not bid: a word for programs and a line for people."""

    reason: str
    text: str


class Facilities(Struct, frozen=True):
    """What the server can offer to `needs`: memory and disk that are left (bytes), cores, free licences by name, the
    tools, files and the architecture asked for that it has."""

    cores: int = 1
    memory_available: int = 1 << 62
    disk_free: int = 1 << 62
    tools: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    licenses: frozenset[str] = frozenset()
    architecture: str = ""
    draining: bool = False


def refuse_need(key: str, value: str, there: Facilities, memory_floor: int) -> Refusal | None:
    """Why this host can't give what one `KEY=VALUE` asks for, or None."""
    match key:
        case "cpu":
            wanted = parse_cores(value)
            if wanted is None or wanted > there.cores:
                return Refusal("cpu", f"needs cpu={value}, there are {there.cores} cores")
        case "mem":
            size = parse_size(value)
            if size is None or size > there.memory_available - memory_floor:
                return Refusal("memory", f"needs mem={value}, {there.memory_available >> 20} MiB are available")
        case "tool":
            if value not in there.tools:
                return Refusal("tool", f"needs tool={value}, which is not on the server's PATH")
        case "file":
            if value not in there.files:
                return Refusal("file", f"needs file={value}, which is another here, or missing")
        case "same":
            pass  # judged when the list of files is there
        case "license":
            if value not in there.licenses:
                return Refusal("license", f"needs license={value}, which this server does not have")
        case "arch":
            if value != there.architecture:
                return Refusal("arch", f"needs arch={value}, this server is {there.architecture}")
        case _:
            return Refusal("resource", f"needs {key}{'=' if value else ''}{value}, which this server does not have")
    return None


def cores_wanted(needs: Sequence[tuple[str, str]]) -> int:
    """How many cores the action keeps busy: what `cpu=` says, else one."""
    if not needs:
        return 1
    return max([1, *(parse_cores(value) or 1 for key, value in needs if key == "cpu")])


def parse_cores(text: str) -> int | None:
    """A number of cores, or None when it isn't one that a machine could have."""
    digits = text.lstrip("0") or text[-1:]  # int() refuses thousands of digits, be they zeros
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= 9 else None


def parse_size(text: str) -> int | None:
    """A size such as 512M, 2G or 4096 in bytes (powers of 1024), or None when it isn't one."""
    factor = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:].upper(), 0)
    digits = text[:-1] if factor else text
    return int(digits) << factor if digits.isdecimal() and digits.isascii() and len(digits) <= 15 else None


def parse_licenses(entries: Sequence[str]) -> dict[str, int]:
    """Licences by name: `acme` is one of them, `acme=3` are three. Raises ValueError for what is neither."""
    counted = {}
    for entry in entries:
        name, _, count = entry.partition("=")
        if not name or (count and not (count.isascii() and count.isdecimal() and 0 < int(count[:6]) <= 4096)):
            raise ValueError(entry)
        counted[name] = int(count or 1)
    return counted
