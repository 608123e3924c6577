"""`rakefarm lint`: what compilations include and do not require, or require and do not use.

Each compilation's files are placed in a directory as a server would place them, and the compiler is asked there for
what it includes (-M). What is not there and is here is missing; it is placed, too, and the compiler asked again. Links
are judged by the objects and archives that they name.
"""

import itertools
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from rakefarm.client.absent import find_here, requires_line
from rakefarm.client.board import safe_text
from rakefarm.client.dependencies import SOURCES, CompilerFailed, ask_compiler, dependency_words
from rakefarm.client.inputs import InputError, Required, arrange, expand
from rakefarm.client.rakefile_model import Action, Rakefile
from rakefarm.market.kind import COMPILE, LINK, kind_of

ROUNDS = 50
_SHELL = re.compile(r"[|&;<>()`$*?\[\]{}~\n]")
_LINKED = (".o", ".a", ".so", ".obj", ".lo")


class Finding(Struct, frozen=True):
    """Something about an action: `kind` is missing, unused or unchecked; `files` are what it is about."""

    line: int
    kind: str
    files: tuple[str, ...]
    text: str


def lint(rakefile: Rakefile, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Of each remote action, in the order of the file, relative to the current directory. Raises OSError."""
    produced: set[str] = set()
    for action_set in rakefile.sets:
        for action in action_set.actions:
            if action.remote:
                yield from _check(action, produced, environ)
        for action in action_set.actions:
            produced |= {os.path.normpath(name) for name in (*(action.produces or ()), *_written(action.command))}


def _check(action: Action, produced: set[str], environ: Mapping[str, str]) -> Iterator[Finding]:
    kind = kind_of(action.command)
    words = _plain_words(action.command)
    if kind not in (COMPILE, LINK):
        return
    if words is None:
        yield Finding(action.line, "unchecked", (), "a shell does more here than start one program")
        return
    if any(word.endswith(SOURCES) for word in words):
        yield from _check_compilation(action, words, produced, environ)
    else:
        yield from _check_link(action, words, produced)


def _plain_words(command: str) -> list[str] | None:
    if _SHELL.search(command):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    while words and ("=" in words[0] or words[0] in ("ccache", "nice", "time", "exec", "env")):
        del words[0]
    return words or None


def _written(command: str) -> list[str]:
    """What a command makes by its -o, or by -c alone."""
    words = _plain_words(command) or []
    named = [following for word, following in itertools.pairwise(words) if word == "-o"]
    if named or "-c" not in words:
        return named
    return [os.path.splitext(os.path.basename(word))[0] + ".o" for word in words if word.endswith(SOURCES)]


# --- compilations -------------------------------------------------------------------------------------------


def _check_compilation(
    action: Action, words: Sequence[str], produced: set[str], environ: Mapping[str, str]
) -> Iterator[Finding]:
    later = tuple(name for name in action.requires if not os.path.exists(name) and os.path.normpath(name) in produced)
    try:
        required = arrange(expand([name for name in action.requires if name not in later]))
    except InputError as error:
        yield Finding(action.line, "missing", (), safe_text(str(error)))
        return
    if later:
        text = f"{', '.join(map(safe_text, later))} is made by an earlier set: build that first"
        yield Finding(action.line, "unchecked", later, text)
        return
    with tempfile.TemporaryDirectory(prefix="rakefarm-lint-") as place:
        here: dict[str, str] = {}
        for file in required:
            _place(file, place, here)
        try:
            missing, used = _include(action, words, place, here, environ)
        except CompilerFailed as error:
            yield Finding(action.line, "unchecked", (), safe_text(str(error).replace(place + os.sep, ""))[:300])
            return
    lacking = tuple(dict.fromkeys(missing))
    if lacking:
        yield Finding(action.line, "missing", lacking, f"add: {requires_line(lacking)}")
    unused = tuple(name for name in dict.fromkeys(here.values()) if name not in used and name not in lacking)
    if unused:
        yield Finding(action.line, "unused", unused, f"not included: {', '.join(map(safe_text, unused))}")


def _place(file: Required, place: str, here: dict[str, str]) -> None:
    """Under both of its names; `here` is told where each came from."""
    for name in (file.path, file.alias):
        if name:
            target = os.path.join(place, os.fsdecode(name))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(file.source, target)
            here[os.path.normpath(os.fsdecode(name))] = os.path.normpath(os.fsdecode(file.source))


def _include(
    action: Action, words: Sequence[str], place: str, here: dict[str, str], environ: Mapping[str, str]
) -> tuple[list[str], set[str]]:
    """What had to be added from here, and what was used. Raises CompilerFailed."""
    missing: list[str] = []
    for _ in range(ROUNDS):
        listed = ask_compiler(dependency_words(words, "-M"), environ, place)
        local = [os.path.relpath(name, place) if name.startswith(place) else name for name in listed]
        local = [os.path.normpath(name) for name in local if not os.path.isabs(name)]
        absent = [name for name in local if not os.path.exists(os.path.join(place, name))]
        added = 0
        for name in absent:
            found = find_here(name, action.requires, action.command)
            if found is not None and found not in here.values():
                missing.append(found)
                source = os.fsencode(found)
                _place(Required(source, source, b""), place, here)
                added += 1
        if not added:
            if absent:
                raise CompilerFailed(f"{absent[0]} is neither required nor here")
            return missing, {here[name] for name in local if name in here}
    raise CompilerFailed("it includes new files without end")


# --- links --------------------------------------------------------------------------------------------------


def _check_link(action: Action, words: Sequence[str], produced: set[str]) -> Iterator[Finding]:
    named = {os.path.normpath(word) for word in words[1:] if word.endswith(_LINKED) and not os.path.isabs(word)}
    named -= {os.path.normpath(name) for name in _written(action.command)}
    if words[0].rpartition("/")[2].endswith("ar") and len(words) > 2:
        named.discard(os.path.normpath(words[2]))
    libraries = {f"lib{word[2:]}{ending}" for word in words if word.startswith("-l") for ending in (".a", ".so")}
    required = [os.path.normpath(name) for name in action.requires]
    bases = {os.path.basename(name) for name in required}
    lacking = tuple(
        sorted(
            name
            for name in named
            if name not in required
            and not (os.sep not in name and name in bases)
            and (name in produced or os.path.exists(name))
        )
    )
    if lacking:
        yield Finding(action.line, "missing", lacking, f"add: {requires_line(lacking)}")
    unused = tuple(
        name
        for name in required
        if name.endswith(_LINKED) and name not in named and os.path.basename(name) not in named | libraries
    )
    if unused:
        yield Finding(action.line, "unused", unused, f"not linked: {', '.join(map(safe_text, unused))}")
