"""A compiler for servers that have another one: gcc's programs, and the shared libraries that they are linked with.

    BOX/usr/bin/x86_64-linux-gnu-gcc-12, …/cc1, …/as     at the paths that they have here
    BOX/lib64/ld-linux-x86-64.so.2, …/libc.so.6, …       their loader and libraries, likewise
    BOX/.rakefarm-toolchain/cc1, as                      scripts that start those two with that loader and libraries

They are inputs like any others: a server is sent them once, and keeps them in its store. Nothing of its own system has
a part in the compile but the kernel and the shell. gcc finds its own headers relative to where its driver is, all
others by -isysroot, and its parts by -B; that it does, and that it makes here what it makes from its usual place, is
tried here before anything is sent. clang finds itself by /proc/self/exe, which names the loader then: it is not sent.
"""

import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence

from msgspec import Struct

from rakefarm import process
from rakefarm.cc.commandline import CXX, Call
from rakefarm.cc.options import Role
from rakefarm.cc.scratch import Scratch
from rakefarm.cc.toolchain import Toolchain, hash_program, quote, run_compiler, searched_directories
from rakefarm.wire.messages import Input

SCRIPTS = b".rakefarm-toolchain"
TRY_S = 20.0
_LIBRARY = re.compile(rb"=> (/\S+) \(0x")
_LOADER = re.compile(rb"^\s+(/\S+) \(0x", re.MULTILINE)
_PROBE = b"struct probe { int member; }; int probe(struct probe *p) { return p->member + __LINE__; }\n"


class Shipment(Struct, frozen=True):
    """One toolchain, ready to be sent. `entries` are inputs and `sources` where each is here; `start` is what starts
    the driver in a shell whose variable B holds BOX."""

    entries: tuple[Input, ...]
    sources: tuple[bytes, ...]
    start: bytes

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum([entry.size for entry in self.entries])


class Shipments:
    """Those that have been made ready. For any thread."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._known: dict[tuple[object, ...], Shipment | None] = {}
        self._lock = threading.Lock()

    def find(self, toolchain: Toolchain, language: bytes, environ: Mapping[str, str]) -> Shipment | None:
        """What is to be sent of a toolchain; None for one that can't be."""
        key = (toolchain.parts, toolchain.builtin)
        with self._lock:
            if key not in self._known:
                made = _make(toolchain, self._scratch, environ) if toolchain.family == "gcc" else None
                if made is not None and not _works(made, toolchain, language, environ):
                    made = None
                self._known[key] = made
            return self._known[key]


def can_use(call: Call) -> bool:
    """Whether a call means the same to a compiler that has been moved: it may not ask for names as they were found, or
    for a program that is not sent (objcopy, which takes split debug information out)."""
    return not any(
        word.role is Role.SPLIT_DEBUG or word.text == b"-fno-canonical-system-headers" for word in call.words
    )


def _make(toolchain: Toolchain, scratch: Scratch, environ: Mapping[str, str]) -> Shipment | None:
    programs = [os.path.realpath(path) for path, _ in toolchain.parts]
    told = b"".join([run_compiler([b"ldd", path], environ, path, may_fail=True) for path in programs])
    libraries, loaders = sorted(set(_LIBRARY.findall(told))), set(_LOADER.findall(told))
    if len(loaders) != 1:
        return None  # statically linked, or of more than one system
    loader = loaders.pop()
    entries, sources = [], []
    for path in [*programs, *libraries, loader]:
        entries.append(Input(path[1:], b"", 0o755, 0, os.stat(path).st_size, hash_program(path)))
        sources.append(path)
    places = dict.fromkeys(os.path.dirname(path) for path in libraries)
    start = b'"$B"%b --inhibit-cache --library-path %b ' % (
        quote(loader),
        b":".join([b'"$B"' + quote(place) for place in places]),
    )
    for (path, _), program in zip(toolchain.parts[1:], programs[1:], strict=True):
        script = b'#!/bin/sh\nB=${0%%/%b/*}\nexec %b"$B"%b "$@"\n' % (SCRIPTS, start, quote(program))
        digest = hashlib.sha256(script).digest()
        entries.append(Input(SCRIPTS + b"/" + os.path.basename(path), b"", 0o755, 0, len(script), digest))
        sources.append(scratch.keep(script, digest))
    return Shipment(tuple(entries), tuple(sources), b'%b"$B"%b -B"$B"/%b/' % (start, quote(programs[0]), SCRIPTS))


def _works(shipment: Shipment, toolchain: Toolchain, language: bytes, environ: Mapping[str, str]) -> bool:
    """Whether it searches the directories that it should, and makes the object that it makes from its usual place."""
    with tempfile.TemporaryDirectory(prefix="rakefarm-toolchain-") as directory:
        box = os.fsencode(os.path.realpath(directory))
        for entry, source in zip(shipment.entries, shipment.sources, strict=True):
            os.makedirs(os.path.dirname(box + b"/" + entry.path), exist_ok=True)
            shutil.copyfile(source, box + b"/" + entry.path)
            os.chmod(box + b"/" + entry.path, entry.mode)
        for place in toolchain.builtin:
            os.makedirs(box + place, exist_ok=True)
        name = b"probe.cc" if language == CXX else b"probe.c"
        with open(box + b"/" + name, "wb") as file:
            file.write(_PROBE)
        moved = b'B=%b;cd "$B"&&%b -isysroot "$B" -ffile-prefix-map="$B"= ' % (quote(box), shipment.start)
        usual = b'B=%b;cd "$B"&&%b -ffile-prefix-map="$B"= ' % (quote(box), quote(toolchain.program))
        searched = _shell(moved + b"-x %b -E -v /dev/null" % language, environ)
        if searched is None or _bare(searched, box) != toolchain.builtin:
            return False
        made = []
        for command in (moved, usual):
            if _shell(command + b"-g -O2 -c %b -o probe.o" % name, environ) is None:
                return False
            with open(box + b"/probe.o", "rb") as file:
                made.append(file.read())
        return made[0] == made[1]


def _bare(told: bytes, box: bytes) -> Sequence[bytes]:
    return tuple([path.removeprefix(box) for path in searched_directories(told) or ()])


def _shell(command: bytes, environ: Mapping[str, str]) -> bytes | None:
    """What a command says; None when it fails."""
    variables = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()} | {b"LC_ALL": b"C"}
    completed = process.run(command, variables, directory=b"/", timeout_s=TRY_S)
    try:
        if completed.ending != process.Exited(0):
            return None
        return b"".join([*completed.stdout.pieces(), *completed.stderr.pieces()])
    finally:
        completed.close()
