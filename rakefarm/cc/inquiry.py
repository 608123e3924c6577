"""What a compiler call is, before its inputs are looked at: understood, its compiler known, its paths found.

Then its inputs. Both are the same for a call that is sent, for one that is found among earlier results, and for the
explanation why it was not found.
"""

import os
from collections.abc import Sequence

from msgspec import Struct, structs

from rakefarm import process
from rakefarm.cc import depfile
from rakefarm.cc.closure import Closure, SearchPath, Walk, plain_path, search_path
from rakefarm.cc.commandline import Call, Word, understand
from rakefarm.cc.dialogue import Request
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.options import Role
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.toolchain import ASK_S, Toolchain, Toolchains, find_compiler, is_cxx, quote

PASSED_VARIABLES = ("LANG", "LANGUAGE", "TZ", "SOURCE_DATE_EPOCH")


class Inquiry(Struct, frozen=True):
    """One call. `directory` is where it runs, by the name that the compiler gives it; `source` and `targets`, which are
    the outputs in the call's order, are absolute; `passed` are directories that these paths climb out of; `colours` are
    options that stand for a terminal, which the compiler won't have."""

    request: Request
    call: Call
    toolchain: Toolchain
    directory: bytes
    source: bytes
    targets: tuple[bytes, ...]
    search: SearchPath
    passed: frozenset[bytes]
    colours: tuple[bytes, ...]

    @property
    def variables(self) -> dict[str, str]:
        """Those that reach the compiler."""
        environ = self.request.environ
        return {name: environ[name] for name in environ if name in PASSED_VARIABLES or name.startswith("LC_")}


def inquire(request: Request, toolchains: Toolchains) -> Inquiry:
    """Understand a call. Raises Local for one that is for this machine."""
    directory = _logical_directory(request)
    name = request.words[0]
    program = find_compiler(name, directory, os.fsencode(request.environ.get("PATH", "")))
    call = understand(request.words[1:], directory, is_cxx(name), request.environ)
    toolchain = toolchains.find(program, call.language, call.search, request.environ)
    if call.processor:
        call = _with_processor(call, toolchain, toolchains, request)
    passed: set[bytes] = set()
    builtin = () if b"-nostdinc" in call.search else toolchain.builtin
    search = search_path(call, directory, builtin, passed)
    source = plain_path(os.path.join(directory, call.source), passed)
    targets = tuple([plain_path(os.path.join(directory, name), passed) for name in call.outputs])
    return Inquiry(
        request, call, toolchain, directory, source, targets, search, frozenset(passed), _colours(request)
    )  # fmt: skip


def _with_processor(call: Call, toolchain: Toolchain, toolchains: Toolchains, request: Request) -> Call:
    """The call with this machine's processor in words. They come before all others, as gcc has it: -mno-avx counts,
    wherever it stands. Raises Local."""
    if any(word.text.startswith(b"-g") and word.text != b"-g0" for word in call.words):
        raise Local(Reason.THIS_PROCESSOR, "debug information records the options, and these in another order")
    named = toolchains.name_processor(toolchain, call.search, call.processor, request.environ)
    rest = [word for word in call.words if word.role is not Role.PROCESSOR]
    return structs.replace(call, words=(*[Word(word, None, False, Role.PASS) for word in named], *rest))


def find_inputs(inquiry: Inquiry, files: FileCache) -> Closure:
    """Every file that the call may read. Raises Local."""
    call, directory = inquiry.call, inquiry.directory
    walk = Walk(files, inquiry.search)
    macros = [word.value or b"" for word in call.words if word.text == b"-D"]
    closure = walk.run(inquiry.source, call.includes, directory, macros)
    closure.passed |= inquiry.passed
    if closure.computed:
        passed = closure.passed
        walk.add_all([plain_path(os.path.join(directory, path), passed) for path in _ask_compiler(inquiry)])
    if not inquiry.request.environ.get("SOURCE_DATE_EPOCH"):
        for path, facts in closure.files.items():
            if facts.directives.time:
                raise Local(Reason.TIME_OF_DAY, os.fsdecode(path))
    return closure


def _logical_directory(request: Request) -> bytes:
    """The directory as the compiler will name it: $PWD where that is the same one (getcwd(3), gcc's `getpwd`)."""
    named = os.fsencode(request.environ.get("PWD", ""))
    if named != request.directory and named.startswith(b"/") and b"/." not in named and b"//" not in named:
        try:
            if os.path.samefile(named, request.directory):
                return named.rstrip(b"/") or b"/"
        except OSError:
            pass
    return request.directory


def _colours(request: Request) -> tuple[bytes, ...]:
    """gcc and clang colour their messages for a terminal, which they don't have there."""
    environ = request.environ
    coloured = request.terminal and environ.get("TERM", "dumb") != "dumb" and not environ.get("NO_COLOR")
    return (b"-fdiagnostics-color=always",) if coloured and environ.get("GCC_COLORS", "x") else ()


def _ask_compiler(inquiry: Inquiry) -> Sequence[bytes]:
    """The files that the compiler reads, by its own word. Raises Local when it finds errors."""
    call, request = inquiry.call, inquiry.request
    words = [inquiry.toolchain.program, b"-M"]
    for word in call.words:
        if word.role not in (
            Role.COMPILE, Role.ASSEMBLY, Role.OUTPUT, Role.DEPENDENCIES, Role.DEPENDENCY_FILE, Role.PREPROCESSOR,
            Role.SPLIT_DEBUG,
        ) and not word.text.startswith((b"-M", b"-g")):  # fmt: skip
            words += word.written()
        elif word.role is Role.PREPROCESSOR and b"-M" in (word.value or b""):
            raise Local(Reason.COMPUTED_INCLUDE, "together with -Wp,-MD")
        elif word.role is Role.PREPROCESSOR:
            words += word.written()
    variables = {os.fsencode(name): os.fsencode(value) for name, value in request.environ.items()}
    command = b" ".join([quote(word) for word in words])
    completed = process.run(command, variables, directory=inquiry.directory, timeout_s=ASK_S)
    try:
        if completed.ending != process.Exited(0):
            raise Local(Reason.COMPUTED_INCLUDE, os.fsdecode(call.source))
        return depfile.names(b"".join(completed.stdout.pieces()))
    finally:
        completed.close()
