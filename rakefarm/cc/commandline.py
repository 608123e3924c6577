"""What a compiler call asks for: one source to one object, which can be sent, or something else, which stays here.

Pure but for response files, which are read. Whatever is not understood is answered with Local and a reason: a call is
sent only when every word of it is known to mean the same on another machine.
"""

import os
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, field

from rakefarm.cc import responsefile
from rakefarm.cc.options import FRAGILE, Option, Role, Takes, find_option
from rakefarm.cc.reasons import Local, Reason

C, CXX, OBJECT_FILE, ASSEMBLY_FILE = b"c", b"c++", b".o", b".s"
SUFFIXES = {
    b".c": C, b".cc": CXX, b".cp": CXX, b".cxx": CXX, b".cpp": CXX, b".CPP": CXX, b".c++": CXX, b".C": CXX,
}  # fmt: skip
"""Languages by the source's suffix; others are for this machine."""
LOCAL_VARIABLES = frozenset({
    "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES",
    "GCC_EXEC_PREFIX", "COMPILER_PATH", "GCC_COMPARE_DEBUG", "CCC_OVERRIDE_OPTIONS", "CCC_ADD_ARGS", "CC_PRINT_OPTIONS",
    "CC_LOG_DIAGNOSTICS", "CC_PRINT_HEADERS", "GCC_DIAGNOSTICS_LOG", "SDKROOT",
    "MACOSX_DEPLOYMENT_TARGET",
})  # fmt: skip
"""Variables that change what a compiler reads, writes or makes (gcc(1), ENVIRONMENT; clang's driver)."""
_SAFE_FOR_ASSEMBLER = (b"--noexecstack", b"--execstack", b"--fatal-warnings", b"-W", b"--warn", b"-mrelax-relocations=",
                       b"--compress-debug-sections", b"-mbranches-within", b"-malign-branch")  # fmt: skip


class Word(Struct, frozen=True):
    """One option or operand: `text` is the option's name (or all of it), `value` its argument, in a word of its own
    when `separate`."""

    text: bytes
    value: bytes | None
    separate: bool
    role: Role | None  # None: the source

    def written(self) -> list[bytes]:
        """As the command line has it."""
        if self.value is None:
            return [self.text]
        return [self.text, self.value] if self.separate else [self.text + self.value]


class Call(Struct, frozen=True):
    """A compile that may be sent. Paths are as they were written, relative ones to the call's directory.

    `outputs` are what it makes when it succeeds, the object first; `dependency_file` is one of them, or None. `search`
    are the words that change the compiler's own search path.
    """

    words: tuple[Word, ...]
    source: bytes
    language: bytes
    outputs: tuple[bytes, ...]
    dependency_file: bytes | None
    quote: tuple[bytes, ...]
    bracket: tuple[bytes, ...]
    system: tuple[bytes, ...]
    after: tuple[bytes, ...]
    includes: tuple[bytes, ...]
    search: tuple[bytes, ...]
    fragile: bytes
    wants_directories: bool

    @property
    def processor(self) -> tuple[bytes, ...]:
        """The words that choose a processor, if one of them means that of this machine."""
        words = [word.text + (word.value or b"") for word in self.words if word.role is Role.PROCESSOR]
        return tuple(words) if any(word.endswith(b"=native") for word in words) else ()


def understand(arguments: Sequence[bytes], directory: bytes, cxx: bool, environ: Mapping[str, str]) -> Call:
    """The compile that `arguments` (without the compiler's own name) ask for. `cxx`: the compiler is g++ or clang++.

    Raises Local.
    """
    for name in environ.keys() & LOCAL_VARIABLES:
        if environ[name]:
            raise Local(Reason.ENVIRONMENT, name)
    return _Reader(cxx).read(responsefile.expand(arguments, directory))


class _Reader(Struct):
    """Reads one command line, left to right."""

    cxx: bool
    words: list[Word] = field(default_factory=list)
    sources: list[tuple[bytes, bytes]] = field(default_factory=list)
    paths: dict[Role, list[bytes]] = field(default_factory=dict)
    search: list[bytes] = field(default_factory=list)
    language: bytes = b"none"
    output: bytes | None = None
    kind: bytes = b""
    depends: bool = False
    dependency_file: bytes | None = None
    split_debug: bool = False
    fragile: bytes = b""
    wants_directories: bool = False

    def read(self, arguments: Sequence[bytes]) -> Call:
        waiting = iter(arguments)
        for word in waiting:
            if word[:1] != b"-":
                self._operand(word)
            elif word == b"-":
                raise Local(Reason.STANDARD_INPUT)
            else:
                self._option(word, waiting)
        return self._call()

    def _operand(self, word: bytes) -> None:
        if not word or word.startswith(b"@"):
            raise Local(Reason.RESPONSE_FILE, os.fsdecode(word))
        language = self.language
        if language == b"none":
            language = SUFFIXES.get(os.path.splitext(word)[1], b"")
            if language == C and self.cxx:
                language = CXX
        self.sources.append((word, language))
        self.words.append(Word(word, None, False, None))

    def _option(self, word: bytes, waiting: Iterator[bytes]) -> None:
        found = find_option(word)
        if found is None:
            raise Local(Reason.UNKNOWN_OPTION, os.fsdecode(word))
        option, value = found
        separate = value is None and option.takes in (Takes.SEPARATE, Takes.EITHER)
        if separate:
            value = next(waiting, None)
            if value is None:
                raise Local(Reason.NOT_A_COMPILE, f"{os.fsdecode(word)} has no argument")
        self._take(option, word, value, separate)
        self.words.append(Word(option.name if value is not None else word, value, separate, option.role))

    def _take(self, option: Option, word: bytes, value: bytes | None, separate: bool) -> None:
        if word.startswith(FRAGILE):
            self.fragile = word
        if word == b"-Wmissing-include-dirs":
            self.wants_directories = True
        match option.role:
            case Role.LOCAL:
                assert option.reason is not None
                raise Local(option.reason, os.fsdecode(word))
            case Role.COMPILE:
                self.kind = self.kind or OBJECT_FILE
            case Role.ASSEMBLY:
                self.kind = ASSEMBLY_FILE
            case Role.OUTPUT:
                if self.output is not None or not value:
                    raise Local(Reason.UNKNOWN_OPTION, "-o comes twice")
                self.output = value
            case Role.LANGUAGE:
                self.language = value or b""
            case Role.DEPENDENCIES:
                self.depends = True
            case Role.DEPENDENCY_FILE:
                self.dependency_file = value
            case Role.SPLIT_DEBUG:
                self.split_debug = True
            case Role.SEARCH:
                self.search += [word, value] if separate and value is not None else [word]
            case Role.PREPROCESSOR:
                self._preprocessor((value or b"").split(b","), word)
            case Role.ASSEMBLER:
                for each in (value or b"").split(b","):
                    if not each.startswith(_SAFE_FOR_ASSEMBLER):
                        raise Local(Reason.UNKNOWN_OPTION, os.fsdecode(word))
            case Role.QUOTE | Role.BRACKET | Role.SYSTEM | Role.AFTER | Role.INCLUDE:
                if not value or value[:1] in b"=-" or value.startswith(b"$SYSROOT"):
                    raise Local(Reason.UNKNOWN_OPTION, os.fsdecode(word))
                self.paths.setdefault(option.role, []).append(value)
            case _:
                pass

    def _preprocessor(self, parts: list[bytes], word: bytes) -> None:
        """-Wp,-MMD,FILE as Linux's makefiles have it, and macros."""
        waiting = iter(parts)
        for part in waiting:
            if part in (b"-MD", b"-MMD"):
                self.depends = True
                self.dependency_file = next(waiting, b"")
            elif part in (b"-MT", b"-MQ"):
                next(waiting, None)
            elif part != b"-MP" and not (part[:2] in (b"-D", b"-U") and len(part) > 2):
                raise Local(Reason.UNKNOWN_OPTION, os.fsdecode(word))

    def _call(self) -> Call:
        if not self.kind:
            raise Local(Reason.NOT_A_COMPILE)
        if not self.sources:
            raise Local(Reason.NO_SOURCE)
        if len(self.sources) > 1:
            raise Local(Reason.SEVERAL_SOURCES)
        source, language = self.sources[0]
        if language in (b"c-header", b"c++-header"):
            raise Local(Reason.PRECOMPILED_HEADER)
        if language not in (C, CXX):
            raise Local(Reason.LANGUAGE, os.fsdecode(source))
        if self.dependency_file is not None and not self.depends:
            raise Local(Reason.NOT_A_COMPILE, "-MF without -MD")
        outputs = self._outputs(source)
        for name in outputs:
            if name in (b"-", b"") or name.startswith((b"/dev/", b"/proc/")) or name.endswith(b"/"):
                raise Local(Reason.STANDARD_OUTPUT, os.fsdecode(name))
        if len(set(outputs)) < len(outputs) or source in outputs:
            raise Local(Reason.STANDARD_OUTPUT, "two outputs of one name")
        self._check_fragile(source, outputs)
        paths = {role: tuple(names) for role, names in self.paths.items()}
        return Call(
            words=tuple(self.words),
            source=source,
            language=language,
            outputs=outputs,
            dependency_file=self._dependency_file(source) if self.depends else None,
            quote=paths.get(Role.QUOTE, ()),
            bracket=paths.get(Role.BRACKET, ()),
            system=paths.get(Role.SYSTEM, ()),
            after=paths.get(Role.AFTER, ()),
            includes=paths.get(Role.INCLUDE, ()),
            search=tuple(self.search),
            fragile=self.fragile,
            wants_directories=self.wants_directories,
        )

    def _check_fragile(self, source: bytes, outputs: Sequence[bytes]) -> None:
        if not self.fragile:
            return
        named = [source, *outputs, *(name for names in self.paths.values() for name in names)]
        if any(name.startswith(b"/") for name in named):
            raise Local(Reason.FRAGILE_OPTION, f"{os.fsdecode(self.fragile)} with absolute names")

    def _outputs(self, source: bytes) -> tuple[bytes, ...]:
        """What is made: the object or assembly, then the file of split debug information, then the dependencies."""
        main = self.output if self.output is not None else _stem(os.path.basename(source)) + self.kind
        made = [main]
        if self.split_debug and self.kind == OBJECT_FILE:
            made.append(_stem(main) + b".dwo")
        if self.depends:
            made.append(self._dependency_file(source))
        return tuple(made)

    def _dependency_file(self, source: bytes) -> bytes:
        if self.dependency_file is not None:
            return self.dependency_file
        return _stem(self.output if self.output is not None else os.path.basename(source)) + b".d"


def _stem(name: bytes) -> bytes:
    """The name without its suffix."""
    return os.path.splitext(name)[0]
