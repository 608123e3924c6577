"""What a source or header may read: every `#include` in it, whether or not its branch is compiled.

Nothing is preprocessed. A conditional that is not taken names files all the same, so what comes out is a superset of
what the compiler opens: files that exist and are sent though nobody reads them cost a little, and change nothing.
Only what can't be told from the text is flagged, and the compiler is asked or the call stays here.

The text is looked at after phase 2 of translation (lines spliced); comments between `#` and the name are allowed for,
and directives inside comments and strings are taken for real ones.
"""

import re

from msgspec import Struct

_GAP = rb"(?:[ \t\f\v]|/\*(?s:.)*?\*/)*"
_DIRECTIVE = re.compile(
    rb"(?:\#|%:|\?\?=)" + _GAP + rb"(include_next|include|import|embed|pragma" + _GAP + rb"GCC[ \t]+dependency)\b"
    + _GAP + rb"(?:<([^>\n]+)>|\"([^\"\n]+)\"|([^\n]*))"
)  # fmt: skip
_AT_START = re.compile(rb"(?:^|\*/)[ \t\f\v]*$")
_HAS_INCLUDE = re.compile(
    rb"\b__has_(?:include(?:_next)?|embed)(?:__)?\b"
    + _GAP
    + rb"(?:\("
    + _GAP
    + rb"(?:<([^>\n]+)>|\"([^\"\n]+)\"|([^\n)]*)))?"
)
_ASSEMBLER_INCLUDE = re.compile(rb"[\"\s;n]\.include[ \t]")
"""A directive in an `asm`: in a string, at its beginning or behind `\\n` or `;`."""
_TIMES = (b"__DATE__", b"__TIME__", b"__TIMESTAMP__")
_SPLICE = re.compile(rb"(?:\\|\?\?/)[ \t\f\v]*\r?\n")


class Include(Struct, frozen=True):
    """One file that may be read: its name as written, in quotes or not, and whether the search goes on from where the
    includer was found."""

    name: bytes
    quoted: bool
    next: bool = False


class Directives(Struct, frozen=True):
    """What one file's text says. `computed` are the words behind #includes that don't name their file; `embeds` what
    reads a file in another way, or asks for one that can't be told, or empty. `time`: it may ask for the time. `dates`:
    it may ask when files were changed."""

    includes: tuple[Include, ...]
    computed: tuple[bytes, ...] = ()
    embeds: bytes = b""
    time: bool = False
    dates: bool = False


def find_directives(text: bytes) -> Directives:
    """What this text may read."""
    text = _spliced(text)
    includes: dict[Include, None] = {}
    computed: dict[bytes, None] = {}
    embeds = b""
    dates = b"__TIMESTAMP__" in text
    for match in _DIRECTIVE.finditer(text):
        word, angled, quoted, other = match.groups()
        dates = dates or word.startswith(b"pragma")
        if word == b"embed":
            embeds = embeds or match[0]
        elif angled is not None or quoted is not None:
            includes[Include(angled or quoted, quoted is not None, word == b"include_next")] = None
        elif other and _is_directive(text, match.start()) and _may_be_macro(other):
            computed[other.strip()] = None
    for match in _HAS_INCLUDE.finditer(text) if b"__has_" in text else ():
        angled, quoted, other = match.groups()
        if angled is not None or quoted is not None:
            includes[Include(angled or quoted, quoted is not None)] = None
        elif other:
            embeds = embeds or match[0]
    if b"incbin" in text:
        embeds = embeds or b".incbin"
    if b".include" in text and _ASSEMBLER_INCLUDE.search(text):
        embeds = embeds or b".include"
    time = any(word in text for word in _TIMES)
    return Directives(tuple(includes), tuple(computed), embeds[:80], time, dates)


def find_definitions(text: bytes, name: bytes) -> list[bytes]:
    """What the macro `name` is defined as, wherever that is compiled; a function-like one begins with its bracket."""
    if name not in text:
        return []
    pattern = rb"(?:#|%:|\?\?=)" + _GAP + rb"define" + _GAP + re.escape(name) + rb"(?![\w$])([^\n]*)"
    return [match[1].strip() for match in re.finditer(pattern, _spliced(text))]


def _spliced(text: bytes) -> bytes:
    if b"\\\n" in text or b"\\\r" in text or b"\\ " in text or b"\\\t" in text or b"??/" in text:
        return _SPLICE.sub(b"", text)
    return text


def _is_directive(text: bytes, position: int) -> bool:
    """Whether a `#` stands where a directive can: first on its line, or behind a comment."""
    begin = text.rfind(b"\n", 0, position) + 1
    return _AT_START.search(text[begin:position]) is not None


def _may_be_macro(words: bytes) -> bool:
    """Whether what stands for the file name can be a macro: an identifier. Prose in comments mostly is one, too."""
    return re.match(rb"[A-Za-z_$\x80-\xff\\]", words) is not None
