"""A file that an action lacked where it ran and that is here: what was complained of, and where the file is."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence

from rakefarm.client.dependencies import HEADERS

MOST_NAMES = 20
MOST_FILES = 20_000
_ABSENT = re.compile(
    rb"fatal error: '?([^'\n:]+?)'?(?:: No such file or directory| file not found)"
    rb"|cannot find ([^\s:]+)(?:: No such file or directory)?"
    rb"|error: no such file or directory: '([^'\n]+)'"
    rb"|^(?:[^:\n]+: )+'?([^:'\n]+?)'?: No such file or directory",
    re.MULTILINE,
)


def absent_names(stderr: bytes) -> list[str]:
    """The relative names of files that were not found, in order, each once."""
    found: dict[str, None] = {}
    for match in _ABSENT.finditer(stderr[: 1 << 16]):
        name = os.fsdecode(next(group for group in match.groups() if group)).removeprefix("cannot open ")
        if name.isprintable() and not name.startswith(("/", "-")):
            found[name] = None
    return list(found)[:MOST_NAMES]


def find_here(name: str, required: Iterable[str], command: str) -> str | None:
    """Where an absent file is, relative to here: by its own name, beside what is required, in a directory of -I, or the
    only header below that ends so."""
    directories = ["", *dict.fromkeys(os.path.dirname(each) for each in required)]
    directories += re.findall(r"(?<=\s)-(?:I|iquote|isystem|L)\s*([\w./+-]+)", command)
    for directory in directories:
        path = os.path.normpath(os.path.join(directory, name))
        if not os.path.isabs(path) and not path.startswith("..") and os.path.isfile(path):
            return path
    if not name.endswith(HEADERS):
        return None
    return _only_one_below(name)


def _only_one_below(name: str) -> str | None:
    wanted, found, seen = os.sep + os.path.normpath(name), [], 0
    for here, names, leaves in os.walk("."):
        names[:] = sorted(each for each in names if not each.startswith("."))
        seen += len(leaves)
        if seen > MOST_FILES:
            return None
        found += [path for leaf in leaves if (path := os.path.join(here, leaf)).endswith(wanted)]
    return os.path.normpath(found[0]) if len(found) == 1 else None


def requires_line(paths: Sequence[str]) -> str:
    """The line to add below an action."""
    return f"requires {shlex.join(paths)}"


def missing_requires(stderr: bytes, required: Sequence[str], staged: Iterable[bytes], command: str) -> str:
    """The line of a Rakefile that an action lacked, or nothing: what it did not find is here and was not with it."""
    there = {os.fsdecode(place) for place in staged}
    paths = [path for name in absent_names(stderr) if (path := find_here(name, required, command)) is not None]
    lacking = [path for path in dict.fromkeys(paths) if path not in there]
    return requires_line(lacking) if lacking else ""
