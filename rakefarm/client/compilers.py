"""The compilers of a machine, found by the same words of the shell here and on every host."""

import os
from collections.abc import Mapping

from msgspec import Struct

from rakefarm import process
from rakefarm.capture import Capture
from rakefarm.client.board import safe_text

NAMES = ("cc", "gcc", "g++", "clang", "clang++")
SCRIPT = """\
for program in {names}; do
  path=$(command -v $program) || continue
  printf '%s\\t%s\\t%s\\t%s\\n' $program "$path" "$($program -dumpmachine 2>&1 | head -n 1)" \
"$($program --version 2>&1 | head -n 1)"
done
"""
TEXT_BYTES = 64 << 10
"""More than any list of compilers."""


class Compiler(Struct, frozen=True):
    """A compiler where it was found. `version` is the first line that it says of itself."""

    name: str
    path: str
    target: str
    version: str

    def is_same(self, other: "Compiler") -> bool:
        """Whether both make the same of a source: paths may differ."""
        return (self.version, self.target) == (other.version, other.target)


def script(names: tuple[str, ...] = NAMES) -> str:
    """Shell text that lists these compilers, as `read_list` reads it."""
    return SCRIPT.format(names=" ".join(names))


def read_list(stdout: Capture) -> dict[str, Compiler]:
    """What the script wrote, wherever it ran: safe to display, and lines that are no compilers left out."""
    text = b""
    for piece in stdout.pieces():
        text += piece[: TEXT_BYTES - len(text)]
        if len(text) >= TEXT_BYTES:
            break
    found = {}
    for line in text.decode("utf-8", "replace").split("\n"):
        words = [safe_text(word)[:200] for word in line.split("\t")]
        if len(words) == 4:
            found[words[0]] = Compiler(*words)
    return found


def compilers_here(names: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, Compiler]:
    """This machine's. Raises OSError when nothing can be run here."""
    variables = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    done = process.run(script(names).encode(), variables, timeout_s=20.0)
    try:
        return read_list(done.stdout)
    finally:
        done.close()
