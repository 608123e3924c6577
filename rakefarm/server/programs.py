"""The list of programs that a server runs, when its owner has made one: by name, each with its path.

A tripwire and no wall: it keeps out what a client runs by mistake, and makes an attacker work. Whoever may run a
compiler may run anything, since compilers run programs that they are told of (`-wrapper`, `-B`, plugins, a linker of
one's choice); what confines that is the isolation.
"""

import os
from collections.abc import Mapping

from rakefarm.words import plain_words


def choose_program(command: bytes, programs: Mapping[str, str]) -> bytes | None:
    """The command with its program's path in place of the name; None when it needs a shell, or is not on the list."""
    words = plain_words(command)
    if words is None:
        return None
    name = os.fsdecode(words[0])
    path = programs.get(name, name if name in programs.values() else None)
    return None if path is None else b" ".join([os.fsencode(path), *words[1:]])
