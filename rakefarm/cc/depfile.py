"""Dependency files (-MD and the like): read, and written again with other paths, in lines as the compiler breaks them.

The compiler on a server names files below its own directory. With that taken out the names are shorter, and so a line
holds more of them than there: a file that is to be the same as a local one has to be broken anew. The widths are those
of gcc's `mkdeps.cc` (`deps_write`) and clang's `DependencyFile.cpp`.
"""

import re

GCC_COLUMNS = 72
CLANG_COLUMNS = 75
_CONTINUED = re.compile(rb" *\\\n *")
_BLANK = re.compile(rb"(?<!\\) +")


def names(text: bytes) -> list[bytes]:
    """The prerequisites of the first rule, unquoted."""
    first = _CONTINUED.sub(b" ", text).split(b"\n", 1)[0]
    _, _, rest = first.partition(b": ")
    return [_unquote(word) for word in _BLANK.split(rest.strip()) if word]


def _unquote(word: bytes) -> bytes:
    return word.replace(b"\\ ", b" ").replace(b"\\#", b"#").replace(b"$$", b"$")


def quoted(path: bytes) -> bytes:
    """A path as the compilers write it for make (gcc's `munge`)."""
    return path.replace(b"$", b"$$").replace(b"#", b"\\#").replace(b" ", b"\\ ").replace(b"\t", b"\\\t")


def without(text: bytes, box: bytes, family: str) -> bytes:
    """The file's text with `box` taken off every path. As it is when `box` is nowhere in it."""
    box = quoted(box)
    if box not in text:
        return text
    wrap = _wrap_clang if family == "clang" else _wrap_gcc
    lines = []
    for line in _CONTINUED.sub(b" ", text).replace(box + b"/", b"/").split(b"\n"):
        head, colon, rest = line.partition(b":")
        # A colon inside a name is followed by more of it; a rule's by a blank or the end of the line.
        while colon and rest and rest[:1] != b" ":
            more, again, rest = rest.partition(b":")
            head, colon = head + b":" + more, again
        lines.append(wrap(_BLANK.split(head), _BLANK.split(rest.strip(b" "))) if colon else line)
    return b"\n".join(lines)


def _wrap_gcc(targets: list[bytes], sources: list[bytes]) -> bytes:
    out = bytearray()
    column = 0
    for number, name in enumerate([*targets, *sources]):
        if number == len(targets):
            out += b":"
            column += 1
        if not name:
            continue
        if column:
            if column + len(name) > GCC_COLUMNS:
                out += b" \\\n"
                column = 0
            column += 1
            out += b" "
        out += name
        column += len(name)
    return bytes(out)


def _wrap_clang(targets: list[bytes], sources: list[bytes]) -> bytes:
    out = bytearray()
    column = 0
    for name in targets:
        if column == 0:
            column = len(name)
        elif column + len(name) + 2 > CLANG_COLUMNS:
            out += b" \\\n  "
            column = len(name) + 2
        else:
            out += b" "
            column += len(name) + 1
        out += name
    out += b":"
    column += 1
    for name in sources:
        if not name:
            continue
        size = len(_unquote(name))
        if column + size + 3 > CLANG_COLUMNS:
            out += b" \\\n "
            column = 2
        out += b" " + name
        column += size + 1
    return bytes(out)
