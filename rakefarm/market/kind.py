"""What kind of work a command is: compile, link or other. Read off its words; it never has to be right."""

import re

COMPILE, LINK, OTHER = "compile", "link", "other"

_COMPILER = re.compile(r"(?:.*/)?(?:[\w.]+-)*(?:cc|c\+\+|gcc|g\+\+|clang|clang\+\+|tcc|icx)(?:-\d[\d.]*)?$")
_LINKER = re.compile(r"(?:.*/)?(?:[\w.]+-)*(?:ld(?:\.\w+)?|ar|ranlib|mold|lld)$")


def kind_of(command: str) -> str:
    """The kind of `command`: compile (a compiler with -c, -S or -E), link (a compiler without, ld, ar), other.

    Environment assignments and launchers (ccache, nice) before the program are passed over.
    """
    words = command.split()
    while words and ("=" in words[0] or words[0] in ("ccache", "nice", "time", "exec", "env")):
        del words[0]
    if not words:
        return OTHER
    if _LINKER.match(words[0]):
        return LINK
    if not _COMPILER.match(words[0]):
        return OTHER
    return COMPILE if any(word in ("-c", "-S", "-E", "-fsyntax-only") for word in words) else LINK
