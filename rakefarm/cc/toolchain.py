"""Which compiler a call means, told so that another machine can say whether it has the same one.

A compiler is known by the content of the programs that it consists of (the driver; gcc's `cc1` or `cc1plus` and the
assembler; clang's own shared libraries), each at its path, and by the directories that it searches by itself. Both are
asked of the compiler once, and again when one of its files is another.
"""

import os
import re
import shlex
import stat
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from rakefarm import process
from rakefarm.cc.commandline import CXX
from rakefarm.cc.reasons import Local, Reason
from rakefarm.digest import hash_descriptor

ASK_S = 20.0
NOWHERE = b"/nowhere/rakefarm"
_CXX_NAMES = re.compile(rb"(?:.*-)?(?:c\+\+|g\+\+|clang\+\+)(?:-[\d.]+)?$")
_GCC = re.compile(rb"^gcc version (\d+)", re.MULTILINE)
_CLANG = re.compile(rb"clang version (\d+)")
_OLDEST = {"gcc": 8, "clang": 10}
"""The first releases with -ffile-prefix-map."""
_LAUNCHERS = (b"ccache", b"distcc", b"icecc", b"sccache", b"rakefarm", b"rakefarm-cc")

Stamp = tuple[int, int, int, int]


class Toolchain(Struct, frozen=True):
    """One compiler for one language. `program` is its absolute path, `parts` are the files that make it up, with their
    digests; `builtin` the directories it searches by itself, absolute, in order, and `own` those of them that -isysroot
    does not move: they belong to the compiler, the others to the system. `family` is gcc or clang."""

    program: bytes
    family: str
    version: int
    parts: tuple[tuple[bytes, bytes], ...]
    builtin: tuple[bytes, ...]
    own: tuple[bytes, ...]

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """What a host must have to be used, as the market's needs."""
        return tuple([("file", f"{digest.hex()}:{os.fsdecode(path)}") for path, digest in self.parts])


def is_cxx(name: bytes) -> bool:
    """Whether a compiler of this name takes .c for C++."""
    return _CXX_NAMES.match(os.path.basename(name)) is not None


def name_for(program: bytes, name: bytes, directory: bytes, search: bytes) -> bytes:
    """What a compiler that was called `name` is to be started as: that name, as long as it leads to `program`, since
    gcc finds its own parts by it, and a link of ours on the PATH would lead it astray."""
    if b"/" in name:
        return name if os.path.normpath(os.path.join(directory, name)) == program else program
    for place in search.split(b":"):
        path = os.path.join(directory, place, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return name if path == program else program
    return program


def find_compiler(name: bytes, directory: bytes, search: bytes, ours: bytes = b"") -> bytes:
    """The absolute path of the compiler that a shell would start, passing over links to our own launcher `ours`.

    Raises Local when there is none.
    """
    if b"/" in name:
        path = os.path.normpath(os.path.join(directory, name))
        status = _look(path)
        if status is None or not _judge(path, ours, *_identity(status)).ours:
            return path
        name = os.path.basename(name)
    for place in search.split(b":"):
        path = os.path.join(directory, place, name)
        status = _look(path)
        if status is not None and stat.S_ISREG(status.st_mode):
            judged = _judge(path, ours, *_identity(status))
            if judged.runs and not judged.ours:
                return path
    raise Local(Reason.NO_COMPILER, os.fsdecode(name))


def _look(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_dev, status.st_ino, status.st_ctime_ns)


class _Judged(Struct, frozen=True):
    """Whether a file can be executed, and whether it is our own launcher."""

    runs: bool
    ours: bool


@lru_cache(maxsize=256)
def _judge(path: bytes, ours: bytes, *_identity: int) -> _Judged:
    """Remembered for as long as the path leads to that same file, unchanged."""
    real = os.path.realpath(path)
    is_ours = bool(ours and real == os.path.realpath(ours)) or os.path.basename(real) == b"rakefarm-cc"
    return _Judged(os.access(path, os.X_OK), is_ours)


class Toolchains:
    """What has been asked of compilers. For any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[tuple[tuple[bytes, Stamp], ...], Toolchain]] = {}
        self._processors: dict[tuple[object, ...], tuple[bytes, ...]] = {}
        self._lock = threading.Lock()

    def find(self, program: bytes, language: bytes, search: Sequence[bytes], environ: Mapping[str, str]) -> Toolchain:
        """The toolchain that `program` stands for. Raises Local when it is no compiler that we know."""
        key = (program, language, tuple(search), environ.get("PATH", ""))
        known = self._known.get(key)
        if known is not None and all(_stamp(path) == stamp for path, stamp in known[0]):
            return known[1]
        with self._lock:
            made = _ask(program, language, search, environ)
            stamps = tuple([(path, _stamp(path)) for path, _ in made.parts])
            self._known[key] = (stamps, made)
            return made

    def name_processor(
        self, toolchain: Toolchain, search: Sequence[bytes], words: Sequence[bytes], environ: Mapping[str, str]
    ) -> tuple[bytes, ...]:
        """The words that -march=native and the like among `words` stand for on this machine. Raises Local for a
        compiler that doesn't tell: clang has words for itself alone."""
        key = (toolchain.parts, tuple(search), tuple(words))
        known = self._processors.get(key)
        if known is None:
            if toolchain.family != "gcc":
                raise Local(Reason.THIS_PROCESSOR, "clang can't be told so")
            known = _processor_words([toolchain.program, *search, *words], environ)
            self._processors[key] = known
        return known


def _processor_words(words: Sequence[bytes], environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """What the driver of gcc tells the compiler proper about the processor: it expands `native` itself. Raises Local
    when it has not."""
    told = run_compiler([*words, b"-###", b"-x", b"c", b"-c", b"/dev/null"], environ, words[0])
    line = next((line for line in told.splitlines() if b"/cc1 " in line), b"")
    found: list[bytes] = []
    waiting = iter(shlex.split(os.fsdecode(line)))
    for word in waiting:
        if word == "--param":
            found.append(os.fsencode(f"--param={next(waiting, '')}"))
        elif word.startswith(("-m", "--param=")):
            found.append(os.fsencode(word))
    if not found or any(word.endswith(b"=native") for word in found):
        raise Local(Reason.THIS_PROCESSOR, "the compiler does not tell which")
    return tuple(found)


def _stamp(path: bytes) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _ask(program: bytes, language: bytes, search: Sequence[bytes], environ: Mapping[str, str]) -> Toolchain:
    if os.path.basename(os.path.realpath(program)) in _LAUNCHERS:
        raise Local(Reason.UNKNOWN_COMPILER, f"{os.fsdecode(program)} is itself a launcher")
    told = run_compiler([program, *search, b"-x", language, b"-E", b"-v", b"/dev/null"], environ, program)
    family, version = _family(told, program)
    builtin = _builtin(told, program)
    paths = [program]
    if family == "gcc":
        cc1 = b"cc1plus" if language == CXX else b"cc1"
        for part in (cc1, b"as"):
            answer = run_compiler([program, b"-print-prog-name=" + part], environ, program).strip()
            if not answer.startswith(b"/"):
                answer = find_compiler(answer, b"/", os.fsencode(environ.get("PATH", "")))
            paths.append(answer)
    else:
        paths += _libraries(program, environ)
    parts = tuple([(path, hash_program(path)) for path in dict.fromkeys(paths)])
    moved = run_compiler(
        [program, *search, b"-isysroot", NOWHERE, b"-x", language, b"-E", b"-v", b"/dev/null"], environ, program
    )
    return Toolchain(program, family, version, parts, builtin, _builtin(moved, program))


def _family(told: bytes, program: bytes) -> tuple[str, int]:
    for family, pattern in (("clang", _CLANG), ("gcc", _GCC)):
        found = pattern.search(told)
        if found:
            version = int(found[1])
            if version < _OLDEST[family]:
                raise Local(Reason.UNKNOWN_COMPILER, f"{family} {version} has no -ffile-prefix-map")
            return family, version
    raise Local(Reason.UNKNOWN_COMPILER, os.fsdecode(program))


def _builtin(told: bytes, program: bytes) -> tuple[bytes, ...]:
    searched = searched_directories(told)
    if searched is None:
        raise Local(Reason.UNKNOWN_COMPILER, os.fsdecode(program))
    return searched


def searched_directories(told: bytes) -> tuple[bytes, ...] | None:
    """The directories between the lines that gcc and clang both write in the C locale; None without these lines."""
    found = re.search(
        rb"#include <\.\.\.> search starts here:\n(.*?)^End of search list", told, re.DOTALL | re.MULTILINE
    )
    if found is None:
        return None
    return tuple([os.path.normpath(line.strip()) for line in found[1].splitlines() if line.startswith(b" /")])


def _libraries(program: bytes, environ: Mapping[str, str]) -> list[bytes]:
    """The shared libraries that most of clang is in. A statically linked one has none."""
    told = run_compiler([b"ldd", os.path.realpath(program)], environ, program, may_fail=True)
    return [path for path in re.findall(rb"=> (/\S+)", told) if re.search(rb"LLVM|clang", os.path.basename(path))]


def hash_program(path: bytes) -> bytes:
    """The SHA-256 of one of a compiler's files. Raises Local."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Local(Reason.UNKNOWN_COMPILER, os.fsdecode(path))
            return hash_descriptor(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Local(Reason.UNKNOWN_COMPILER, f"{os.fsdecode(path)}: {error.strerror}") from error


def run_compiler(words: Sequence[bytes], environ: Mapping[str, str], program: bytes, may_fail: bool = False) -> bytes:
    """What a compiler, or a program that is asked of one, says: both streams, in the C locale. Raises Local when it
    fails, which it may with `may_fail`."""
    variables = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    variables |= {b"LC_ALL": b"C", b"LANG": b"C", b"LANGUAGE": b"C"}
    command = b" ".join([quote(word) for word in words])
    completed = process.run(command, variables, directory=b"/", timeout_s=ASK_S)
    try:
        if completed.ending != process.Exited(0) and not may_fail:
            raise Local(Reason.UNKNOWN_COMPILER, os.fsdecode(program))
        return b"".join([*completed.stdout.pieces(), *completed.stderr.pieces()])
    finally:
        completed.close()


def quote(word: bytes) -> bytes:
    """The word as a shell takes it literally."""
    return b"'" + word.replace(b"'", b"'\\''") + b"'"
