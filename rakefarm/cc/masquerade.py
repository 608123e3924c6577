"""Has every compiler call of one command go by us: links by the compilers' names come first on its PATH.

A bare `-j`, with which make would start everything at once and ninja and cmake as much as this machine has cores for,
gets the number that the farm has room for.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from rakefarm.cc import dialogue, locations
from rakefarm.cc.helper import CONTROL
from rakefarm.cc.launcher import install_links
from rakefarm.cc.wrapper import CallStatus, ask_helper

PARALLEL = ("make", "gmake", "ninja", "samu", "cmake", "meson")


def run_command(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Becomes the command; answers an exit status when it can't be executed."""
    try:
        masked, variables = mask(words, environ)
        os.execvpe(masked[0], masked, variables)
    except Unmasked as error:
        return int(error.status)
    except OSError as error:
        return not_executable(words[0], error)


class Unmasked(Exception):
    """The command can't be run so, which was said; `status` is what to end with."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def mask(words: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The words and variables with which a command's compiler calls go by us. Raises Unmasked."""
    if not words:
        raise Unmasked(_complain("no command is given; say, rakefarm run make -j", CallStatus.USAGE))
    links = os.path.join(os.path.dirname(locations.launcher_path(environ)), "links")
    try:
        install_links(links, environ)
    except OSError as error:
        raise Unmasked(_complain(f"{links}: {error}", CallStatus.NO_HELPER)) from error
    search = environ.get("PATH", os.defpath)
    return with_jobs(words, lambda: _jobs(environ)), {**environ, "PATH": f"{links}:{search}"}


def not_executable(word: str, error: OSError) -> int:
    """Say so; answers the exit status."""
    return _complain(f"can't execute {word}: {error.strerror}", CallStatus.NO_COMPILER)


def with_jobs(words: Sequence[str], count: Callable[[], int]) -> list[str]:
    """The words with a number behind a bare `-j`, and for ninja, which needs none to run in parallel, one in any
    case."""
    changed = list(words)
    name = os.path.basename(words[0])
    if name not in PARALLEL:
        return changed
    for place, word in enumerate(words[1:], 1):
        following = words[place + 1] if place + 1 < len(words) else ""
        if word in ("-j", "--jobs", "--parallel") and not following.isdecimal():
            changed[place] = f"-j{count()}"
    given = any(word.startswith("-j") for word in words[1:])
    if name in ("ninja", "samu") and not given:
        changed.insert(1, f"-j{count()}")
    return changed


def _jobs(environ: Mapping[str, str]) -> int:
    """How many compiles the farm takes at once, by the helper's word; at least what this machine has cores for."""
    here = os.cpu_count() or 1
    try:
        told = ask_helper([CONTROL, b"jobs"], environ, start=True).stdout
        return max(here, int(told))
    except (OSError, ValueError, dialogue.Malformed, locations.LocationError):
        return here


def _complain(text: str, status: CallStatus) -> int:
    print(f"rakefarm: error: {text}", file=sys.stderr)
    return int(status)
