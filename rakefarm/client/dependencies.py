"""What a source includes, by the compiler's own word: its -M and -MM, read as make would read them."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from rakefarm import process
from rakefarm.capture import Capture

LIMIT_S = 60.0
TEXT_BYTES = 4 << 20
C_SOURCES = (".c",)
CXX_SOURCES = (".cc", ".cpp", ".cxx", ".c++", ".C")
SOURCES = (*C_SOURCES, *CXX_SOURCES, ".s", ".S")
HEADERS = (".h", ".hh", ".hpp", ".hxx", ".inc", ".ipp", ".tcc")
_WITH_ARGUMENT = frozenset({"-o", "-MF", "-MT", "-MQ"})
_LEFT_OUT = re.compile(r"-(?:c|S|E|M|MM|MD|MMD|MP|MG|o.+|MF.+|MT.+|MQ.+|save-temps.*)\Z")
_WORD = re.compile(r"(?:\\.|[^\s\\])+")


class CompilerFailed(Exception):
    """The compiler could not say; the text is what it complained of."""


def dependency_words(words: Sequence[str], option: str) -> list[str]:
    """The words of a compilation that asks for what it includes instead: `option` is -M or -MM. A header that is not
    there is listed by the name that it is included by (-MG)."""
    kept = [words[0], option, "-MG"]
    skip = False
    for word in words[1:]:
        if skip or word in _WITH_ARGUMENT:
            skip = not skip
        elif not _LEFT_OUT.fullmatch(word):
            kept.append(word)
    return kept


def read_rule(text: str) -> list[str]:
    """The files behind the colon of each of make's rules, in order, each once: blanks, # and $ may be escaped."""
    found: dict[str, None] = {}
    for rule in text.replace("\\\n", " ").split("\n"):
        _, colon, files = rule.partition(": ")
        if colon:
            for word in _WORD.findall(files):
                found[re.sub(r"\\([\s#\\:])", r"\1", word).replace("$$", "$")] = None
    return list(found)


def ask_compiler(words: Iterable[str], environ: Mapping[str, str], directory: str) -> list[str]:
    """What the compiler lists when it is started with these words there. Raises CompilerFailed, OSError."""
    variables = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    variables[b"PWD"] = os.fsencode(os.path.abspath(directory))
    variables[b"LC_ALL"] = b"C"
    import shlex

    done = process.run(os.fsencode(shlex.join(words)), variables, directory=os.fsencode(directory), timeout_s=LIMIT_S)
    try:
        if done.ending != process.Exited(0):
            lines = _text(done.stderr).strip().splitlines()
            raise CompilerFailed(lines[0] if lines else str(done.ending))
        return read_rule(_text(done.stdout))
    finally:
        done.close()


def _text(capture: Capture) -> str:
    return os.fsdecode(b"".join(capture.pieces())[:TEXT_BYTES])
