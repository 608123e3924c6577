"""What a compile's result is known by: everything that it depends on, as a digest.

    call key     compiler, words, directory, variables, directories that are searched
    result key   the call key, and each file that may be read, with its digest

The walk that finds the files is determined by the call, by what is in the files and by which of the names that it looks
for are there. So equal result keys mean equal compiles: a header that appears earlier on the path is a file more, or
another path, and what is looked for in vain need not be in the key.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from rakefarm.cc.filecache import Facts
from rakefarm.cc.inquiry import Inquiry
from rakefarm.cc.options import Role

FORM = b"rakefarm cc result 1"
"""Changes with what a key is made of, or a record holds."""


class Parts(Struct, frozen=True, array_like=True):
    """What a call key is made of, as the explanation of a miss compares it. `compiler` are its files with their
    digests."""

    compiler: tuple[tuple[bytes, bytes], ...]
    words: tuple[bytes, ...]
    variables: tuple[tuple[bytes, bytes], ...]
    directory: bytes
    search: tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]]


def parts_of(inquiry: Inquiry) -> Parts:
    """What the result of this call depends on, but for its inputs."""
    environ = inquiry.request.environ
    # None of these reaches a server; but what they do to a compiler here is not for us to judge.
    others = {name: environ[name] for name in environ if name.startswith(("GCC_", "CLANG_"))}
    search, toolchain = inquiry.search, inquiry.toolchain
    return Parts(
        toolchain.parts,
        (*_words_that_matter(inquiry), *inquiry.colours),
        tuple([(os.fsencode(n), os.fsencode(v)) for n, v in sorted({**inquiry.variables, **others}.items())]),
        inquiry.directory,
        (search.quote, search.bracket, toolchain.builtin),
    )


def _words_that_matter(inquiry: Inquiry) -> list[bytes]:
    """The words, but for the names of outputs that nothing records: the object's name is the dependency file's target
    and part of the name of split debug information, and is otherwise found nowhere."""
    call = inquiry.call
    nameless = call.dependency_file is None and len(call.outputs) == 1
    words: list[bytes] = []
    for word in call.words:
        if word.role is not Role.DEPENDENCY_FILE and not (word.role is Role.OUTPUT and nameless):
            words += word.written()
    return words


def call_key(parts: Parts) -> bytes:
    """32 bytes."""
    return hashlib.sha256(FORM + msgspec.msgpack.encode(parts)).digest()


def result_key(call: bytes, files: Sequence[tuple[bytes, Facts]]) -> bytes:
    """32 bytes, for the call of this key that reads `files`, in the order of their paths."""
    named = [(path, facts.sha256) for path, facts in files]
    return hashlib.sha256(call + msgspec.msgpack.encode((named, times_that_matter(files)))).digest()


def times_that_matter(files: Sequence[tuple[bytes, Facts]]) -> dict[bytes, int]:
    """The times (nanoseconds) of files that a result may depend on, by path: all of them where a source asks for times,
    and those that gcc compares: of two files with the same content and the same time it takes one for the other
    (`#pragma once`, #import)."""
    if any(facts.directives.dates for _, facts in files):
        return {path: facts.mtime_ns for path, facts in files}
    if len({facts.sha256 for _, facts in files}) == len(files):
        return {}
    count = Counter([facts.sha256 for _, facts in files])
    return {path: facts.mtime_ns for path, facts in files if count[facts.sha256] > 1}


def source_key(source: bytes) -> bytes:
    """What the calls of a source are noted under, by its absolute path; 32 bytes."""
    return hashlib.sha256(FORM + b" source " + source).digest()
