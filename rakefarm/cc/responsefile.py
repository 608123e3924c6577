"""Response files: `@FILE` stands for the words in FILE, split as libiberty's `buildargv` does, nested at will."""

import os
from collections.abc import Sequence

from rakefarm.cc.reasons import Local, Reason

MOST_FILES = 2000
"""What libiberty allows before it takes the files for a circle."""
_BLANK = b" \t\n\r\f\v"


def split_words(text: bytes) -> list[bytes]:
    """The words of a response file: blanks part them; `'`, `"` and a backslash quote, the last also inside quotes."""
    words: list[bytes] = []
    word = bytearray()
    inside = False
    quote = 0
    position = 0
    while position < len(text):
        byte = text[position]
        position += 1
        if byte == 0x5C:  # a backslash takes the next byte as it is
            inside = True
            if position < len(text):
                word.append(text[position])
                position += 1
        elif quote:
            if byte == quote:
                quote = 0
            else:
                word.append(byte)
        elif byte in b"'\"":
            quote, inside = byte, True
        elif byte in _BLANK:
            if inside:
                words.append(bytes(word))
                word.clear()
                inside = False
        else:
            word.append(byte)
            inside = True
    if inside:
        words.append(bytes(word))
    return words


def expand(words: Sequence[bytes], directory: bytes) -> list[bytes]:
    """The words with every response file replaced. One that isn't there stays a word, as the compiler takes it.

    Raises Local for one that can't be read, or a circle.
    """
    budget = MOST_FILES
    expanded: list[bytes] = []
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        if not word.startswith(b"@") or len(word) == 1:
            expanded.append(word)
            continue
        path = os.path.join(directory, word[1:])
        if not os.path.exists(path):
            expanded.append(word)
            continue
        budget -= 1
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError as error:
            raise Local(Reason.RESPONSE_FILE, f"{os.fsdecode(path)}: {error.strerror}") from error
        if not budget or b"\0" in text:
            raise Local(Reason.RESPONSE_FILE, os.fsdecode(path))
        waiting += reversed(split_words(text))
    return expanded
