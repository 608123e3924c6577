"""The lines of a Rakefile: comments, indentation and words. What they mean is decided in `rakefile`.

Three facts shape this module. An action's text belongs to the shell, so only what the shell itself would
take for a comment may be removed from it. Names belong to the file system, so every byte survives. And errors
point at a place, so words keep their columns.

Columns count characters from 1; a tab is one character, an undecodable byte too.
"""

import codecs
import re
from collections.abc import Iterator

from msgspec import Struct

BLANKS = " \t\r\f\v"
"""White space inside a line. Not `str.isspace`: a no-break space may well be part of a file's name."""

TAB_STOP = 4

_FIRST_WORD = re.compile(r"[^ \t\r\f\v]*+")
_BARE_WORD = re.compile(r"[^ \t\r\f\v]++")
# A word is a run of pieces: bare text, one quoted part, or one escaped character.
_PIECE = re.compile(r"""[^ \t\r\f\v'"\\]++|'[^']*+'|"(?:[^"\\]|\\.)*+"|\\.""", re.DOTALL)
# What changes how the shell reads a line, or might start a comment; the rest is skipped in one step.
_SHELL_SIGN = re.compile(r"""\\.?|\$[({]|['"`(){}#]""", re.DOTALL)
_CLOSER = {"'": "'", '"': '"', "`": "`", "(": ")", "$(": ")", "${": "}"}
_WITHIN_DOUBLE_QUOTES = frozenset({"$(", "${", "`"})
_DOUBLE_QUOTE_ESCAPE = re.compile(r'\\([$`"\\])')


class LineError(Exception):
    """A line can't be read: `text` says why, `column` where. The caller adds the line's number."""

    def __init__(self, column: int, text: str) -> None:
        super().__init__(column, text)
        self.column = column
        self.text = text


class Word(Struct, frozen=True):
    """A word after unquoting, and the column at which it began."""

    text: str
    column: int


def numbered_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, from 1: UTF-8, any byte kept, a byte-order mark dropped.

    Lines end with LF; the CR of a CRLF stays, as white space at the end of its line.
    """
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    return enumerate(text.split("\n"), 1)


def indent_of(line: str) -> tuple[int, int]:
    """How many characters indent the line, and how wide they are with tab stops of 4."""
    indent = len(line) - len(line.lstrip(" \t"))
    return indent, len(line[:indent].expandtabs(TAB_STOP))


def first_word(text: str) -> str:
    """The text up to its first white space."""
    match = _FIRST_WORD.match(text)
    assert match is not None
    return match[0]


def without_comment(line: str) -> str:
    """The line up to any `#`, without the white space before it: all lines but actions."""
    return line.partition("#")[0].rstrip(BLANKS)


def without_shell_comment(command: str) -> str:
    """The command up to a `#` that is unquoted, unescaped and at the start or after white space.

    In doubt the `#` stays, since the shell drops a real comment itself: so inside `$(…)`, `(…)`, `${…}` and
    backquotes nothing is removed, which also keeps `"$(echo "a # b")"` whole.
    """
    command = command.rstrip(BLANKS)
    if "#" not in command:
        return command
    open_parts: list[str] = []  # what will close each part that is open, innermost last
    word_start = 0  # a '#' here follows white space that is not escaped
    for match in _SHELL_SIGN.finditer(command):
        sign, start = match[0], match.start()
        innermost = open_parts[-1] if open_parts else ""
        if innermost == "'":
            if sign == "'":
                open_parts.pop()
            elif sign[0] == "\\" and sign.endswith("'"):
                open_parts.pop()  # a backslash means nothing in single quotes: this one ends them
        elif sign[0] == "\\":
            word_start = match.end() + 1  # an escaped blank doesn't end the word: '\ #' is no comment
        elif sign == innermost:
            open_parts.pop()
        elif innermost == '"':
            if sign in _WITHIN_DOUBLE_QUOTES:
                open_parts.append(_CLOSER[sign])
        elif sign == "#":
            before = command[start - 1] if start else " "
            if not open_parts and before in BLANKS and start >= word_start:
                return command[:start].rstrip(BLANKS)
        elif sign in _CLOSER:
            open_parts.append(_CLOSER[sign])
    return command


def words(line: str, offset: int) -> list[Word]:
    """The words of `line[offset:]` after the shell's quoting, with columns counted in the whole line.

    Only quoting is the shell's: nothing is expanded. Raises LineError for a quote that isn't closed, a last
    backslash that escapes nothing, and a word that is empty.
    """
    if not any(sign in line for sign in "'\"\\"):
        return [Word(match[0], match.start() + 1) for match in _BARE_WORD.finditer(line, offset)]
    found: list[Word] = []
    end = len(line)
    while offset < end:
        if line[offset] in BLANKS:
            offset += 1
            continue
        start = offset
        pieces: list[str] = []
        while offset < end and line[offset] not in BLANKS:
            match = _PIECE.match(line, offset)
            if match is None:
                raise LineError(offset + 1, _unclosed(line[offset]))
            pieces.append(_unquoted(match[0]))
            offset = match.end()
        text = "".join(pieces)
        if not text:
            raise LineError(start + 1, "an empty name in quotes; write a name between them")
        found.append(Word(text, start + 1))
    return found


def _unquoted(piece: str) -> str:
    match piece[0]:
        case "'":
            return piece[1:-1]
        case '"':
            return _DOUBLE_QUOTE_ESCAPE.sub(r"\1", piece[1:-1])
        case "\\":
            return piece[1:]
        case _:
            return piece


def _unclosed(sign: str) -> str:
    if sign == "\\":
        return "a backslash at the end of the line escapes nothing; a name can't continue on the next line"
    return f"a quote {sign} that isn't closed on its line (on this kind of line any # starts a comment)"
