"""`rakefarm init`: a Rakefile for a directory of C or C++ files, what each needs by the compiler's -MM.

One set compiles every source, a second links: each source with a `main` is a program, with all that have none. The file
is written whole, and never over another.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from rakefarm.client.board import safe_text
from rakefarm.client.dependencies import (
    C_SOURCES,
    CXX_SOURCES,
    HEADERS,
    CompilerFailed,
    ask_compiler,
    dependency_words,
)
from rakefarm.config import ConfigError

NOT_SEARCHED = frozenset({"build", "node_modules", "__pycache__", "CMakeFiles"})
_MAIN = re.compile(rb"^\s*(?:extern\s+\"C\"\s+)?(?:int|void|auto|signed)?\s*main\s*\(", re.MULTILINE)
_SPACES = re.compile(rb"/\*.*?\*/|//[^\n]*", re.DOTALL)
_MATH = re.compile(
    rb"^\s*#\s*include\s*<(math|complex|tgmath|pthread|threads)\.h>|^\s*#\s*include\s*<(thread)>", re.MULTILINE
)


class Source(Struct, frozen=True):
    """A source: its path, what it is compiled to, the files below the directory that it is made of (itself first),
    whether it has a `main`, and the libraries that its headers belong to."""

    path: str
    object: str
    files: tuple[str, ...]
    has_main: bool
    libraries: tuple[str, ...]

    @property
    def is_cxx(self) -> bool:
        """Whether it is C++."""
        return self.path.endswith(CXX_SOURCES)


class Compilers(Struct, frozen=True):
    """The commands, and the options of every compilation."""

    c: str
    cxx: str
    options: tuple[str, ...]

    def of(self, is_cxx: bool) -> str:
        """The one for this language."""
        return self.cxx if is_cxx else self.c


def write_new(path: str, text: str) -> None:
    """Whole, and only where nothing is. Raises ConfigError."""
    beside = f"{path}.{os.getpid()}.new"
    try:
        try:
            with open(beside, "x", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
            os.link(beside, path)
        finally:
            if os.path.exists(beside):
                os.unlink(beside)
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already; move it away, or name another with --output FILE") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def find_sources(directory: str) -> tuple[list[str], list[str]]:
    """C and C++ files below, and the directories that hold headers, relative to it; hidden ones are passed over."""
    sources, headed = [], []
    for here, names, leaves in os.walk(directory):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in NOT_SEARCHED)
        relative = os.path.relpath(here, directory)
        if any(leaf.endswith(HEADERS) for leaf in leaves):
            headed.append(relative)
        for leaf in sorted(leaves):
            if leaf.endswith((*C_SOURCES, *CXX_SOURCES)) and not leaf.startswith("."):
                sources.append(leaf if relative == "." else os.path.join(relative, leaf))
    return sources, headed


def examine(
    directory: str, paths: Sequence[str], headed: Sequence[str], compilers: Compilers, environ: Mapping[str, str]
) -> tuple[list[Source], Compilers]:
    """What each source is made of; with -I for the directories of headers, if it does not go without. Raises
    ConfigError."""
    for path in paths:
        if not path.isprintable() or "#" in path:
            raise ConfigError(
                f"{safe_text(path)}: a Rakefile can't name it: rename it, without # or control characters"
            )
    sources, problem = _ask_all(directory, paths, compilers, environ)
    if problem:
        wider = Compilers(compilers.c, compilers.cxx, (*compilers.options, *[f"-I{each}" for each in headed]))
        again, still = _ask_all(directory, paths, wider, environ)
        if still:
            raise ConfigError(f"{still}; say where headers are: --options '-Iinclude'")
        sources, compilers = again, wider
    return sources, compilers


def _ask_all(
    directory: str, paths: Sequence[str], compilers: Compilers, environ: Mapping[str, str]
) -> tuple[list[Source], str]:
    """The sources, or the first thing that is wrong."""

    def ask(path: str) -> Source | str:
        command = [*shlex.split(compilers.of(path.endswith(CXX_SOURCES))), *compilers.options, "-c", path]
        try:
            files = ask_compiler(dependency_words(command, "-MM"), environ, directory)
        except CompilerFailed as error:
            return f"{safe_text(path)}: {safe_text(str(error))[:300]}"
        local = [os.path.normpath(name) for name in files if not os.path.isabs(name)]
        for name in local:
            if not os.path.exists(os.path.join(directory, name)):
                return f"{safe_text(path)} includes {safe_text(name)}, which is not found"
        with open(os.path.join(directory, path), "rb") as file:
            code = _SPACES.sub(b" ", file.read())
        libraries = {
            "-pthread" if (found[0] or found[1])[:2] in (b"pt", b"th") else "-lm" for found in _MATH.findall(code)
        }
        inside = [name for name in local if not name.startswith("..")]
        return Source(path, _object_of(path, paths), tuple(inside), bool(_MAIN.search(code)), tuple(sorted(libraries)))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        found = list(threads.map(ask, paths))
    problem = next((each for each in found if isinstance(each, str)), "")
    return [each for each in found if isinstance(each, Source)], problem


def _object_of(path: str, paths: Sequence[str]) -> str:
    """Beside it; a.c and a.cpp need names of their own."""
    stem = os.path.splitext(path)[0]
    return f"{stem}.o" if [os.path.splitext(each)[0] for each in paths].count(stem) == 1 else f"{path}.o"


def rakefile_text(sources: Sequence[Source], compilers: Compilers, name: str) -> str:
    """The Rakefile. `name` is what the only program, or the library of sources without a `main`, is called."""
    lines = ["# Made by rakefarm init; edit it as you like. Other hosts: HOSTS = name name:port …", "", "compile:"]
    for source in sources:
        words = [*compilers.options, "-c", source.path, "-o", source.object]
        lines.append(f"\tremote-{compilers.of(source.is_cxx)} {shlex.join(words)}")
        lines += _detail("requires", source.files)
        lines += _detail("produces", [source.object])
    mains = [source for source in sources if source.has_main]
    parts = [source for source in sources if not source.has_main]
    lines += ["", "link:"]
    if not mains:
        objects = [source.object for source in parts]
        lines.append(f"\tremote-ar rcs {shlex.join([f'lib{name}.a', *objects])}")
        lines += [*_detail("requires", objects), *_detail("produces", [f"lib{name}.a"])]
    for main in mains:
        program = name if len(mains) == 1 else os.path.splitext(main.path)[0]
        together = [main, *parts]
        libraries = sorted({library for source in together for library in source.libraries})
        words = ["-o", program, *[source.object for source in together], *libraries]
        lines.append(f"\tremote-{compilers.of(any(each.is_cxx for each in together))} {shlex.join(words)}")
        lines += [*_detail("requires", [each.object for each in together]), *_detail("produces", [program])]
    return "\n".join(lines) + "\n"


def _detail(word: str, names: Iterable[str]) -> list[str]:
    return [f"\t\t{word} {shlex.join(names)}"]
