"""What the lines below an action may hold: names, resources, a time limit, nothing; each checked where it is read.

Every reader takes a line without its comment and the offset behind its first word, and raises LineError.
"""

import math
import re

from rakefarm.client.rakefile_lines import LineError, Word, words
from rakefarm.hosts import parse_number, quoted

MAX_TIMEOUT_S = 10**9  # some thirty years; far beyond, a wait in the system library overflows
MAX_RESOURCE = 2**63 - 1

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_SIZE = re.compile(r"([0-9]+)([KMGTkmgt]?)")
_RESOURCE = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)(?:=(.*))?", re.DOTALL)
_SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def read_names(line: str, offset: int) -> list[str]:
    """Names and patterns, quoting removed; none is fine."""
    return [word.text for word in words(line, offset)]


def read_needs(line: str, offset: int) -> list[tuple[str, str]]:
    """Resources as (key, value), the value '' where none was given."""
    return [_read_need(word) for word in words(line, offset)]


def read_timeout(line: str, offset: int) -> float:
    """One time limit in seconds: finite, above 0."""
    found = words(line, offset)
    if len(found) != 1:
        column = found[1].column if found else offset + 1
        raise LineError(column, "timeout wants one number of seconds, like 'timeout 60'")
    text, column = found[0].text, found[0].column
    # float() alone would take 'nan', 'inf' and '1_0' as well.
    timeout_s = float(text) if _SECONDS.fullmatch(text) else math.nan
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        wanted = f"seconds above 0 and up to {MAX_TIMEOUT_S}, like 'timeout 60'"
        raise LineError(column, f"timeout wants {wanted}, not {quoted(text)}")
    return timeout_s


def check_bare(line: str, offset: int, word: str) -> None:
    """That nothing follows the `word`, which says it all."""
    found = words(line, offset)
    if found:
        wanted = "names of files go on a 'requires' line of their own"
        raise LineError(found[0].column, f"{word} stands alone, without {quoted(found[0].text)}; {wanted}")


def parse_size(text: str) -> int | None:
    """The bytes of a `mem=` value: a number above 0, then nothing, K, M, G or T (powers of 1024); or None."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    number = parse_number(match[1], MAX_RESOURCE)
    if number is None:
        return None
    size_bytes = number * _SIZE_UNITS[match[2].upper()]
    return size_bytes if size_bytes <= MAX_RESOURCE else None


def _read_need(word: Word) -> tuple[str, str]:
    match = _RESOURCE.fullmatch(word.text)
    if match is None:
        raise _unfit(word, "needs wants KEY or KEY=VALUE, like mem=2G or license=acme", word.text)
    key, value = match[1], match[2] or ""
    if key == "mem" and parse_size(value) is None:
        raise _unfit(word, "mem wants a size in bytes or with K, M, G or T, like mem=2G", value)
    if key == "cpu" and parse_number(value, MAX_RESOURCE) is None:
        raise _unfit(word, "cpu wants a whole number above 0, like cpu=2", value)
    return key, value


def _unfit(word: Word, wanted: str, found: str) -> LineError:
    return LineError(word.column, f"{wanted}, not {quoted(found)}")
