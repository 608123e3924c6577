"""Which commands need no shell: plain words only, the first a program. GNU make takes the same shortcut.

Starting `/bin/sh` to have it start the compiler costs about as much again as starting the compiler. A command is run
without one only where the shell would do exactly the same: no character that a shell gives a meaning to, no
assignment, no builtin, and the program is found on the PATH. Everything else goes to `/bin/sh -c`.

One more form is known, that of the compiles of `rakefarm cc`, which print where they run and go to a directory there:

    B=$PWD;echo "$B";cd './home/me/project'&&exec '/usr/bin/gcc' "-ffile-prefix-map=$B=" '-c' 'a.c'
"""

import os
import re
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

_PLAIN = re.compile(rb"[A-Za-z0-9_./+,:@%=-]+(?: +[A-Za-z0-9_./+,:@%=-]+)*")

REMEMBERED_BYTES = 1024
"""Commands up to this length are remembered; builds repeat them."""
NAME_BYTES = 4096  # PATH_MAX; longer ones would only fill the memory of what was found
_SHELL_WORDS = frozenset(
    b"alias bg bind break builtin caller cd chdir command compgen complete continue coproc declare dirs disown do done"
    b" echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help history if in"
    b" jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return select set shift shopt"
    b" source suspend test then time times trap type typeset ulimit umask unalias unset until wait while .".split()
) - {b"false"}
"""Words that dash, bash or another `/bin/sh` takes for itself. `true` and `false` do the same as programs."""


def plain_words(command: bytes) -> list[bytes] | None:
    """The words of a command that means to a shell just these words, or None."""
    words = _words(command) if len(command) <= REMEMBERED_BYTES else _split(command)
    return None if words is None else [*words]


def is_program(entry: tuple[str, str]) -> bool:
    """Whether it is a program's name, and an absolute path for it that needs no quoting."""
    name, path = entry
    plain = plain_words(os.fsencode(path))
    return bool(name) and "/" not in name and path.startswith("/") and plain is not None and len(plain) == 1


def split_plain(command: bytes, environment: Mapping[bytes, bytes]) -> tuple[bytes, list[bytes]] | None:
    """The program's path and the words of a command that needs no shell, or None."""
    words = _words(command) if len(command) <= REMEMBERED_BYTES else _split(command)
    if words is None:
        return None
    name = words[0]
    if b"/" in name:
        return name, words
    path = _find(name, environment.get(b"PATH", b""))
    return None if path is None else (path, words)


class Placed(Struct, frozen=True):
    """What a command of the form above comes to: it prints `said`, and becomes the program that is the first of `words`
    in `directory`, with these variables besides its own."""

    said: bytes
    directory: bytes
    words: list[bytes]
    variables: dict[bytes, bytes]


_OPENING = re.compile(rb"""B=\$PWD;echo "\$B";cd '\.(/[^'\0]+)'&&exec (?=['"/])""")
_PIECE = re.compile(
    rb"""'([^'\0]*)'|\\(')|"((?:[^"$`\\\0]|\$B(?![A-Za-z0-9_]))*)"|([A-Za-z0-9_./+,:@%=-]+)|( +)"""
)  # fmt: skip


def split_placed(command: bytes, directory: bytes) -> Placed | None:
    """What a command of that form comes to in the absolute `directory`, by which PWD names it; None for another one."""
    opening = _OPENING.match(command)
    if opening is None or not directory.startswith(b"/") or b"\\" in directory:  # what echo makes of these, differs
        return None
    below = opening[1]
    if below.endswith(b"/") or b"//" in below or b"/." in below:
        return None
    words = _expand(command, opening.end(), directory)
    if not words or not words[0].startswith(b"/"):
        return None
    variables = {b"PWD": directory + below, b"OLDPWD": directory}
    return Placed(directory + b"\n", directory + below, words, variables)


def _expand(text: bytes, position: int, box: bytes) -> list[bytes] | None:
    """The words from `position` on, where $B is `box`; None when anything there means something else to a shell."""
    words: list[bytes] = []
    word: bytes | None = None
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None:
            return None
        position = piece.end()
        if piece.lastindex == 5:
            if word is not None:
                words.append(word)
            word = None
        elif piece.lastindex == 3:
            word = (word or b"") + piece[3].replace(b"$B", box)
        else:
            word = (word or b"") + piece[piece.lastindex or 0]
    return words if word is None else [*words, word]


def _split(command: bytes) -> list[bytes] | None:
    if not _PLAIN.fullmatch(command):
        return None
    words = command.split()
    name = words[0]
    return None if b"=" in name or name in _SHELL_WORDS or len(name) > NAME_BYTES else words


_words = lru_cache(maxsize=256)(_split)


@lru_cache(maxsize=512)
def _find(name: bytes, search: bytes) -> bytes | None:
    """The program's path. Remembered, as a shell does; one that has gone since can't be started, and the
    shell is asked.
    """
    for directory in search.split(b":"):
        path = directory + b"/" + name
        if directory.startswith(b"/") and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None
