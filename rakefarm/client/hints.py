"""What a person may have overlooked when an action has failed, read off its command. It may be wrong: it only hints."""

import itertools
import posixpath
import re
from collections.abc import Iterable, Sequence

from rakefarm.client.absent import missing_requires
from rakefarm.client.rakefile_model import Action
from rakefarm.client.report import Report
from rakefarm.codes import Code

# -o out/a.o, -oout/a.o, --output=out/a.o, > out/a.o: plain words only, since a shell may make anything of the others.
_WRITES_TO = re.compile(r"""(?:(?<=\s)-o\s*|(?<=\s)--output[=\s]\s*|>>?\s*)([\w.+@%:,/-]+)""")


def explain_failure(report: Report, action: Action, staged: Sequence[bytes], produces: Iterable[bytes] | None) -> None:
    """Add to the report of a command that ran elsewhere and failed what the Rakefile seems to lack."""
    said = b"".join(itertools.islice(report.stderr.pieces(), 4))
    if line := missing_requires(said, action.requires, staged, action.command):
        report.fail(Code.MISSING_REQUIRES, f"{report.detail} (what it did not find is here; add below it: {line})")
    elif hint := absent_directory(action.command, staged, produces):
        report.detail += f" ({hint})"


def absent_directory(command: str, staged: Iterable[bytes], produces: Iterable[bytes] | None) -> str:
    """A hint for a command that writes to a directory which is not where it ran: what is there are the directories on
    the way to the `staged` files and to what it `produces`. Empty when there is nothing to say."""
    if "mkdir" in command or "install" in command:
        return ""
    there = {b"."}
    for path in (*staged, *(produces or ())):
        while path := posixpath.dirname(path):
            there.add(path)
    for match in _WRITES_TO.finditer(command):
        name = posixpath.normpath(match[1])
        directory = posixpath.dirname(name)
        if not directory or directory.startswith(("/", "..")) or directory.encode() in there:
            continue
        return f"there is no directory {directory} where it ran: declare it, produces {name}, or make it in the command"
    return ""
