"""Results of earlier compiles, kept so that none is computed twice.

    call key     ─► manifest: the ways that the walk through the includes has taken: which files, which absences
    result key   ─► outputs and messages of a compile that went well
    source path  ─► the latest calls that compiled it, for the explanation of a miss

A hit needs neither compiler nor preprocessor, nor the walk: if all files of an earlier way are there, and nothing that
it looked for in vain, the walk would go the same way again as long as it finds the same content; and that is in the
result key.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from rakefarm.cc.closure import PRECOMPILED, Closure
from rakefarm.cc.filecache import Facts, FileCache
from rakefarm.cc.inquiry import Inquiry
from rakefarm.cc.misses import Cause, Miss, changed, compare_parts
from rakefarm.cc.resultkeys import Parts, call_key, parts_of, result_key, source_key
from rakefarm.records import RecordStore

WAYS = 4
"""So many ways a manifest keeps: two configurations that are built in turn have two."""
CALLS = 8
"""So many calls of a source are remembered."""


class Way(Struct, frozen=True, array_like=True):
    """One way through the includes: the files, in order of their paths, and their digests when it was taken last; by
    directory the names that were looked for in vain; directories that were climbed out of, and those that weren't
    there to be."""

    paths: tuple[bytes, ...]
    digests: tuple[bytes, ...]
    absent: dict[bytes, tuple[bytes, ...]]
    passed: tuple[bytes, ...]
    missing: tuple[bytes, ...]


class Made(Struct, frozen=True, array_like=True):
    """A result: what the compiler wrote to standard error, and the contents of its outputs in the call's order."""

    stderr: bytes
    outputs: tuple[bytes, ...]


class Earlier(Struct, frozen=True, array_like=True):
    """One call of a source: what its key was made of, why its result was not there when it was last looked for in
    vain, and when that was (seconds since 1970)."""

    parts: Parts
    missed: str
    at_s: float


class Lookup(Struct):
    """One search: the call's key, and what came of it; `miss` says why, where nothing did."""

    parts: Parts
    key: bytes
    ways: tuple[Way, ...]
    made: Made | None = None
    miss: Miss = Miss(Cause.NEW)


_Record = TypeVar("_Record")
_encode = msgspec.msgpack.Encoder().encode
_decode_ways = msgspec.msgpack.Decoder(tuple[Way, ...]).decode
_decode_made = msgspec.msgpack.Decoder(Made).decode
_decode_calls = msgspec.msgpack.Decoder(tuple[Earlier, ...]).decode


class Results:
    """Those in one directory. For any thread."""

    def __init__(self, store: RecordStore, files: FileCache) -> None:
        self.store = store
        self._files = files

    def find(self, inquiry: Inquiry) -> Lookup:
        """Look a call up without its inputs being searched. Raises Local when an input can't be read."""
        parts = parts_of(inquiry)
        key = call_key(parts)
        lookup = Lookup(parts, key, self._read(key, _decode_ways) or ())
        for way in () if inquiry.call.wants_directories else lookup.ways:
            files = self._follow(way)
            if files is not None:
                lookup.made = self._result(result_key(key, files))
                if lookup.made is not None:
                    return lookup
        lookup.miss = self._explain(inquiry, lookup)
        return lookup

    def find_by_inputs(self, lookup: Lookup, closure: Closure) -> tuple[bytes, Made | None]:
        """Look it up once more now that its inputs are known: the way to them may be a new one, and the result not.
        Answers the result key, and the result."""
        key = result_key(lookup.key, sorted(closure.files.items()))
        return key, self._result(key)

    def keep(self, inquiry: Inquiry, lookup: Lookup, key: bytes, closure: Closure, made: Made | None) -> None:
        """Note down a compile that was looked for in vain; or, without `made`, that its result was found another
        way."""
        if made is not None:
            self.store.put(key, _encode(made))
        if not closure.computed:
            way = _way_of(closure)
            others = [each for each in lookup.ways if each.paths != way.paths]
            self.store.put(lookup.key, _encode((way, *others[: WAYS - 1])))
        index = source_key(inquiry.source)
        calls = self._read(index, _decode_calls) or ()
        entry = Earlier(lookup.parts, str(lookup.miss), time.time())
        self.store.put(index, _encode((entry, *[each for each in calls if each.parts != entry.parts][: CALLS - 1])))

    def earlier(self, source: bytes) -> Sequence[Earlier]:
        """The latest calls that compiled the source of this absolute path, the last first."""
        return self._read(source_key(source), _decode_calls) or ()

    def _read(self, key: bytes, decode: Callable[[bytes], _Record]) -> _Record | None:
        data = self.store.get(key)
        if data is None:
            return None
        try:
            return decode(data)
        except msgspec.MsgspecError:  # of another release
            return None

    def _result(self, key: bytes) -> Made | None:
        return self._read(key, _decode_made)

    # --- the walk, without walking ----------------------------------------------------------------------

    def _follow(self, way: Way) -> list[tuple[bytes, Facts]] | None:
        """The files of an earlier way as they are now; None when the walk could go another way."""
        look = self._files.look
        files = []
        for path in way.paths:
            facts = look(path)
            if facts is None:
                return None
            files.append((path, facts))
        if self._appeared(way) or not _are_directories(way.passed) or any(map(os.path.isdir, way.missing)):
            return None
        return files

    def _appeared(self, way: Way) -> list[bytes]:
        """What is there now of the names that were looked for in vain."""
        found = []
        for directory, names in way.absent.items():
            for name in self._files.present(directory, names):
                path = os.path.join(directory, name)
                # A directory of a header's name is no header; of a precompiled one it may hold several.
                if os.path.exists(path) and (name.endswith(PRECOMPILED) or not os.path.isdir(path)):
                    found.append(path)
        return found

    # --- why not ----------------------------------------------------------------------------------------

    def _explain(self, inquiry: Inquiry, lookup: Lookup) -> Miss:
        if not lookup.ways:
            return compare_parts(lookup.parts, [each.parts for each in self.earlier(inquiry.source)])
        way = lookup.ways[0]
        looked = [(path, digest, self._files.look(path)) for path, digest in zip(way.paths, way.digests, strict=True)]
        gone = [path for path, _, facts in looked if facts is None]
        if gone:
            return changed(Cause.MISSING, gone)
        appeared = self._appeared(way)
        if appeared:
            return changed(Cause.APPEARED, appeared)
        other = [path for path, digest, facts in looked if facts is not None and facts.sha256 != digest]
        return changed(Cause.INPUTS, other) if other else Miss(Cause.EVICTED)


def _way_of(closure: Closure) -> Way:
    absent: dict[bytes, list[bytes]] = {}
    precompiled = (path + suffix for path in closure.files for suffix in PRECOMPILED)
    for path in (*closure.absent, *precompiled):
        directory, name = os.path.split(path)
        absent.setdefault(directory, []).append(name)
    files = sorted(closure.files.items())
    return Way(
        tuple([path for path, _ in files]),
        tuple([facts.sha256 for _, facts in files]),
        {directory: tuple(sorted(names)) for directory, names in absent.items()},
        tuple(sorted(closure.passed)),
        tuple(sorted(closure.missing)),
    )


def _are_directories(paths: Iterable[bytes]) -> bool:
    return all(os.path.isdir(path) and not os.path.islink(path) for path in paths)
