"""How a call is sent to an engine: as to a host, but that the command itself sees whether the worker is like us.

An engine's workers may be anybody's. They are chosen by the compiler's identity, and know nothing of system headers, so
the command compares these, the compiler's driver and the assembler with a list that is one of its inputs, before it
compiles. The list is part of the action's digest, so what the engine keeps of one is never another's result.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import structs

from rakefarm.cc.closure import Closure
from rakefarm.cc.filecache import Facts
from rakefarm.cc.inquiry import Inquiry
from rakefarm.cc.layout import BEGINNING, SAME_PATH, Package, Shared, pack, same_text
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.resultkeys import times_that_matter
from rakefarm.cc.scratch import Scratch
from rakefarm.cc.toolchain import Toolchain, run_compiler
from rakefarm.engine.properties import clang_release, identity_of
from rakefarm.wire.messages import Input

ABSENT_PATH = b".rakefarm-absent"
DIFFERS = b"differs\n"
"""What a command says, after where it runs, on a worker that is not like us."""
SMALL_BYTES = 4 << 20
"""Parts of a compiler up to this size are compared each time, in some 2 ms each; the engine's property tells of all."""
_SAME = b"sha256sum -c %b >/dev/null 2>&1" % SAME_PATH
_ABSENT = b'[ -z "$(xargs -0 ls -d <%b 2>/dev/null)" ]' % ABSENT_PATH
_OTHERWISE = b"||{ echo differs;exit 1;};"


class _List(NamedTuple):
    """A list that is sent: where, and what is in it."""

    path: bytes
    content: bytes


def pack_for_engine(
    inquiry: Inquiry, closure: Closure, shared: Shared, scratch: Scratch, compares_all: bool
) -> Package:
    """The call, ready to be sent, every source of it a file. With `compares_all` every part of the compiler is compared
    there, since nothing else tells of it. Raises Local for what can't be sent."""
    _check_times(closure.files)
    package = pack(inquiry, closure, shared)
    same, absent = _lists(same_text(closure, shared), inquiry.toolchain, compares_all)
    lists = [_List(SAME_PATH, same), *([_List(ABSENT_PATH, absent)] if absent else [])]
    entries = [Input(path, b"", 0o600, 0, len(content), hashlib.sha256(content).digest()) for path, content in lists]
    sources = [scratch.keep(each.content, entry.sha256) for each, entry in zip(lists, entries, strict=True)]
    check = _SAME + (b"&&" + _ABSENT if absent else b"") + _OTHERWISE
    return structs.replace(
        package,
        entries=(*entries, *package.entries[1:]),
        sources=(*sources, *package.sources[1:]),
        command=BEGINNING + check + package.command.removeprefix(BEGINNING),
    )


def _check_times(files: Mapping[bytes, Facts]) -> None:
    """An engine's inputs have no times, so all have one. That is no matter but for `__TIMESTAMP__`, and where gcc would
    tell files of one content apart by their times, in seconds (libcpp, `check_file_against_entries`)."""
    listed = list(files.items())
    if any(facts.directives.dates for _, facts in listed):
        raise Local(Reason.FILE_TIMES, "__TIMESTAMP__")
    times: dict[bytes, int] = {}
    for path in times_that_matter(listed):
        facts = files[path]
        seconds = facts.mtime_ns // 10**9
        if facts.size and times.setdefault(facts.sha256, seconds) != seconds:
            raise Local(Reason.FILE_TIMES, os.fsdecode(path))


def _lists(text: bytes, toolchain: Toolchain, compares_all: bool) -> tuple[bytes, bytes]:
    """What sha256sum(1) is to compare, and the names that must not be there, each ended by a NUL."""
    same, absent = [], []
    for path, digest in toolchain.parts:
        if compares_all or os.path.getsize(path) <= SMALL_BYTES:
            same.append(b"%b  %b\n" % (digest.hex().encode(), path))
    for line in text.splitlines():
        digest, _, path = line.partition(b" ")
        if digest == b"-":
            absent.append(path + b"\0")
        else:
            same.append(b"%b  %b\n" % (digest, path))
    if any(b"\\" in line for line in same):
        raise Local(Reason.ODD_NAME, "a backslash in the name of a system header")
    return b"".join(same), b"".join(absent)


def identity(toolchain: Toolchain, environ: Mapping[str, str]) -> str:
    """The compiler's, as an engine's worker offers it; empty when it has none. It takes a moment, so keep it."""
    program = toolchain.program
    target = _said([program, b"-dumpmachine"], environ, program)
    if toolchain.family == "clang":
        release = clang_release(_said([program, b"--version"], environ, program))
        return identity_of("clang", release, target, [digest for _, digest in toolchain.parts])
    release = _said([program, b"-dumpfullversion"], environ, program)
    return identity_of("gcc", release, target, [digest for _, digest in toolchain.parts[1:]])


def _said(words: list[bytes], environ: Mapping[str, str], program: bytes) -> str:
    return run_compiler(words, environ, program, may_fail=True).decode("utf-8", "replace").strip()
