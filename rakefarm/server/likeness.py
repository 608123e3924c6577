"""Whether this server's own files are what a client takes them for: compilers and system headers.

A client that compiles on several machines must know that each has the same compiler and the same system headers, or
the result depends on where it was made. It names files by path and digest; here they are compared with what is there.
Digests are remembered for as long as a file is the same.
"""

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from functools import lru_cache

from rakefarm.digest import Beat, hash_descriptor, no_beat
from rakefarm.snapshot import Stamp, stamp_of
from rakefarm.wire.messages import Execute

LIST_BYTES = 16 << 20
"""A longer list is refused: no compile reads so many headers."""
LISTS, SHORT_LIST_BYTES = 64, 64 << 10
"""So many lists up to this size are remembered."""
PLACES = (b"/usr/", b"/opt/", b"/lib/", b"/lib32/", b"/lib64/", b"/libx32/", b"/bin/", b"/sbin/")
"""Where programs and headers of a system are. Files elsewhere are nobody's business."""
_FILE_NEED = re.compile(r"([0-9a-f]{64}):(/.+)", re.DOTALL)


class Differs(Exception):
    """This server's own files are not what the action needs; another's may be."""


@lru_cache(maxsize=256)
def _named(value: str) -> tuple[bytes, bytes] | None:
    """The path and the digest of a need `file=DIGEST:PATH`."""
    found = _FILE_NEED.fullmatch(value)
    return None if found is None else (os.fsencode(found[2]), bytes.fromhex(found[1]))


class Likeness:
    """One worker's memory of its machine's files. For any thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Stamp, bytes]] = {}
        self._lists: dict[bytes, list[bytes]] = {}  # by digest

    def has_file(self, value: str) -> bool:
        """Whether a need `file=DIGEST:PATH` is met."""
        named = _named(value)
        return named is not None and self._digest(named[0], no_beat) == named[1]

    def compare(self, request: Execute, box: bytes, beat: Beat) -> None:
        """Hold our files against the lists that a request brings as inputs, placed in `box`, one for each need
        `same=PATH`. Raises Differs."""
        for name in [need.value for need in request.task.needs if need.key == "same"]:
            path = os.fsencode(name)
            entry = next((entry for entry in request.manifest if entry.path == path), None)
            if entry is None or entry.size > LIST_BYTES:
                raise Differs(f"same={name} is no input of the action, or longer than {LIST_BYTES >> 20} MiB")
            lines = self._lists.get(entry.sha256)
            if lines is None:
                with open(box + b"/" + path, "rb") as file:
                    lines = self._remember(entry.sha256, file.read(LIST_BYTES))
            difference = self.first_difference(lines, beat)
            if difference:
                raise Differs(difference)

    def _remember(self, digest: bytes, text: bytes) -> list[bytes]:
        """The lines of a list, which many actions have; of one that was changed in its box nothing is remembered."""
        lines = text.splitlines()
        if len(text) <= SHORT_LIST_BYTES and hashlib.sha256(text).digest() == digest:
            if len(self._lists) >= LISTS:
                self._lists = {}
            self._lists[digest] = lines
        return lines

    def first_difference(self, lines: Sequence[bytes], beat: Beat) -> str:
        """The first of the files that isn't as it should be, for people, or nothing.

        A line is a SHA-256 in hexadecimal digits, or `-` for a file that must not be there, a blank, and a path.
        """
        for line in lines:
            digest, _, path = line.partition(b" ")
            if digest == b"-":
                if not path.startswith(PLACES) or os.path.lexists(path):
                    return f"{os.fsdecode(path)} is here, and not there"
            elif len(digest) != 64 or (self._digest(path, beat) or b"").hex().encode() != digest:
                return f"{os.fsdecode(path)} is another here, or missing"
        return ""

    def _digest(self, path: bytes, beat: Beat) -> bytes | None:
        """The digest of a regular file of the system, or None."""
        if not path.startswith(PLACES) or b"/../" in path:
            return None
        try:
            status = os.stat(path)
            known = self._known.get(path)
            if known is not None and known[0] == stamp_of(status):
                return known[1]
            if not stat.S_ISREG(status.st_mode):
                return None
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                digest = hash_descriptor(descriptor, beat)
                self._known[path] = (stamp_of(os.fstat(descriptor)), digest)
            finally:
                os.close(descriptor)
        except (OSError, ValueError):
            return None
        return digest
