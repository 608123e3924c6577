"""Every file that a compile may read, found by walking `#include`s along the compiler's search path.

What is found is a superset of what the compiler opens, and a subset of what is here: a directory that holds just these
files answers every question of the compiler as this machine would. Where the compiler reads the server's own files
instead (the system's headers), it is told which, with what digest, and which must not be there because here they were
looked for in vain.
"""

import os
import re
from collections.abc import Iterable

from msgspec import Struct, field

from rakefarm.cc.commandline import Call
from rakefarm.cc.directives import Include
from rakefarm.cc.filecache import Facts, FileCache
from rakefarm.cc.reasons import Local, Reason

ALWAYS_INCLUDED = Include(b"stdc-predef.h", quoted=False)
"""What gcc includes before everything else where the C library has one (gcc's `glibc-c.cc`)."""
PRECOMPILED = (b".gch", b".pch")
"""What gcc, and clang for -include, read instead of a header when it lies beside it."""


class SearchPath(Struct, frozen=True):
    """The directories of a call, absolute: those for `"…"` alone, and those for both."""

    quote: tuple[bytes, ...]
    bracket: tuple[bytes, ...]


class Closure(Struct):
    """What a compile may read: `files` by absolute path; `absent` are paths that were looked for and aren't there;
    `passed` are directories that a path goes through only to climb out of again, `missing` those of which there were
    none. `computed`: there is an #include that only the compiler can tell."""

    files: dict[bytes, Facts] = field(default_factory=dict)
    absent: set[bytes] = field(default_factory=set)
    passed: set[bytes] = field(default_factory=set)
    missing: set[bytes] = field(default_factory=set)
    computed: bool = False


_MACRO = re.compile(rb"([A-Za-z_$][\w$]*)\s*(?://.*|/\*.*)?$", re.DOTALL)
_LITERAL = re.compile(rb"(?:<([^>]+)>|\"([^\"]+)\")\s*(?://.*|/\*.*)?$", re.DOTALL)
NOWHERE = b"/\1"
"""A path that is not there, and that no server is asked about."""


def plain_path(path: bytes, passed: set[bytes], missing: set[bytes] | None = None) -> bytes:
    """The absolute `path` without `.` and `..`, which must mean the same; directories that are climbed out of are noted
    in `passed`. NOWHERE when one of them isn't there, which is noted in `missing`. Raises Local where one is a symbolic
    link: its parent is somewhere else."""
    if b"/." not in path and b"//" not in path and path[-1:] != b"/":
        return path
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            left = b"/" + b"/".join(parts)
            if os.path.islink(left):
                raise Local(Reason.SYMBOLIC_LINK, os.fsdecode(path))
            if not os.path.isdir(left):
                if missing is not None:
                    missing.add(left)
                return NOWHERE
            if parts:
                passed.add(left)
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/" + b"/".join(parts)


def search_path(call: Call, directory: bytes, builtin: Iterable[bytes], passed: set[bytes]) -> SearchPath:
    """The directories in the order of gcc's `incpath.cc`: a -I of what the system chain has, too, is ignored there."""

    def absolute(names: Iterable[bytes]) -> list[bytes]:
        return [plain_path(os.path.join(directory, name), passed) for name in names]

    known: dict[bytes, tuple[int, int] | None] = {}

    def identify(name: bytes) -> tuple[int, int] | None:
        if name not in known:
            known[name] = _identity(name)
        return known[name]

    system = absolute(call.system) + list(builtin)
    after = absolute(call.after)
    places: dict[tuple[int, int], bytes] = {}
    kept: list[bytes] = []
    seen_in_system = {identity for name in system if (identity := identify(name)) is not None}
    for name in absolute(call.bracket):
        if identify(name) not in seen_in_system:
            kept.append(name)
    quoted = absolute(call.quote)
    for name in [*quoted, *kept, *system, *after]:
        identity = identify(name)
        if identity is not None and places.setdefault(identity, name) != name:
            raise Local(Reason.SYMBOLIC_LINK, f"{os.fsdecode(name)} is {os.fsdecode(places[identity])}")
    chain = [name for name in [*kept, *system, *after] if identify(name) is not None]
    quote = [name for name in quoted if identify(name) is not None]
    return SearchPath(tuple(dict.fromkeys(quote)), tuple(dict.fromkeys(chain)))


def _identity(path: bytes) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


class Walk:
    """Finds the closure of one call."""

    def __init__(self, cache: FileCache, search: SearchPath) -> None:
        self._cache = cache
        self._search = search
        self._chain = search.bracket
        self._quote_chain = (*search.quote, *search.bracket)
        self._resolved: dict[tuple[bytes, bytes], bytes | None] = {}
        self._waiting: list[tuple[bytes, Facts]] = []
        self._computed: set[tuple[bytes, bytes]] = set()  # a macro, and the directory of who includes it
        self._listings: dict[bytes, frozenset[bytes] | None] = {}
        self.closure = Closure()

    def run(self, source: bytes, includes: Iterable[bytes], directory: bytes, macros: Iterable[bytes]) -> Closure:
        """`source` is absolute, `includes` are as written, `macros` what -D says. Raises Local."""
        self.add(source)
        self._follow(ALWAYS_INCLUDED, b"")
        for name in includes:
            self._follow(Include(name, quoted=True), directory)
        self._drain()
        self._resolve_macros(list(macros))
        return self.closure

    def _resolve_macros(self, macros: list[bytes]) -> None:
        """Follow `#include MACRO` to every file that the macro is defined as anywhere. One that is never defined is in
        a branch that is not compiled; one that is defined as something else is for the compiler to tell."""
        done: set[tuple[bytes, bytes, bytes]] = set()
        while True:
            found = {
                (name, here, text)
                for name, here in self._computed
                for path, facts in self.closure.files.items()
                for text in self._cache.definitions(path, facts, name)
            } - done
            if not found:
                break
            done |= found
            for _, here, text in found:
                literal = _LITERAL.match(text)
                if literal is None:
                    self.closure.computed = True
                else:
                    self._follow(Include(literal[1] or literal[2], literal[2] is not None), here)
            self._drain()
        names = {name for name, _ in self._computed}
        if any(macro.split(b"=")[0] in names for macro in macros):
            self.closure.computed = True

    def add_all(self, paths: Iterable[bytes]) -> None:
        """Add files that the compiler has named, with all that they may include."""
        for path in paths:
            if path not in self.closure.files:
                self.add(path)
                for place in self._chain:
                    if path.startswith(place + b"/"):
                        self._look_before(place, path[len(place) + 1 :])
        self._drain()

    def _look_before(self, found_in: bytes, name: bytes) -> None:
        for place in self._chain:
            if place == found_in:
                return
            self.closure.absent.add(place + b"/" + name)

    def add(self, path: bytes) -> None:
        """Add one file that must be there. Raises Local."""
        facts = self._cache.look(path)
        if facts is None:
            raise Local(Reason.UNREADABLE, f"{os.fsdecode(path)}: no such file")
        self._enter(path, facts)

    def _drain(self) -> None:
        while self._waiting:
            path, facts = self._waiting.pop()
            here = os.path.dirname(path)
            for include in facts.directives.includes:
                self._follow(include, here)

    def _enter(self, path: bytes, facts: Facts) -> None:
        if path in self.closure.files:
            return
        here, name = os.path.split(path)
        for suffix in PRECOMPILED:
            if not self._lacks(here, name + suffix) and os.path.exists(path + suffix):
                raise Local(Reason.PRECOMPILED_HEADER, os.fsdecode(path))
        directives = facts.directives
        if directives.embeds:
            raise Local(Reason.EMBEDDED_FILE, f"{os.fsdecode(path)}: {directives.embeds.decode(errors='replace')}")
        for words in directives.computed:
            macro = _MACRO.match(words)
            if macro is None:
                self.closure.computed = True
            else:
                self._computed.add((macro[1], here))
        self.closure.files[path] = facts
        if directives.includes:
            self._waiting.append((path, facts))

    def _follow(self, include: Include, here: bytes) -> None:
        name = include.name
        if name.startswith(b"/"):
            self._try(plain_path(name, self.closure.passed, self.closure.missing))
        elif include.next:
            for place in self._quote_chain:
                self._try(self._candidate(place, name))
        else:
            key = (here if include.quoted else b"", name)
            if key not in self._resolved:
                self._resolved[key] = self._resolve(name, here if include.quoted else None)

    def _resolve(self, name: bytes, here: bytes | None) -> bytes | None:
        """The first of the candidates that is there; those before it are noted as absent."""
        if here is not None:
            places: Iterable[bytes] = (here, *self._quote_chain)
        else:
            places = self._chain
        first = name.partition(b"/")[0]
        for place in places:
            path = self._candidate(place, name)
            if self._lacks(place, first):
                self.closure.absent.add(path)
            elif self._try(path):
                return path
        return None

    def _lacks(self, directory: bytes, name: bytes) -> bool:
        """Whether there is surely nothing of this name; a look at each name would cost a call of the system."""
        if directory not in self._listings:
            self._listings[directory] = self._cache.listing(directory)
        names = self._listings[directory]
        return names is not None and name not in names and name not in (b"", b".", b"..")

    def _candidate(self, place: bytes, name: bytes) -> bytes:
        path = place + b"/" + name if place != b"/" else b"/" + name
        if b"/." not in path and b"//" not in path:
            return path
        return plain_path(path, self.closure.passed, self.closure.missing)

    def _try(self, path: bytes) -> bool:
        if path in self.closure.files:
            return True
        if path in self.closure.absent:
            return False
        facts = self._cache.look(path)
        if facts is None:
            self.closure.absent.add(path)
            return False
        self._enter(path, facts)
        return True
