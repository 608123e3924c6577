"""What actions ask of a machine and machines offer, in the words that a build and a worker must agree on.

    OSFamily=linux, ISA=x86-64          the interface's own words for what uname(2) tells
    compiler=gcc-12.2.0-…               a compiler's identity: release, target, and the content of what does the work
    tool=…, license=…, cpu=…, mem=…     a Rakefile's `needs`, as they stand there

A shared cache of results is only as good as the identity of what made them: two machines whose `gcc` are of different
releases must not answer for each other.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from rakefarm import process
from rakefarm.digest import hash_descriptor
from rakefarm.market.kind import OTHER, kind_of

COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "clang++")
"""Names under which a worker looks for what it offers."""
ASK_S = 20.0
ISAS = {"x86_64": "x86-64", "aarch64": "arm-a64", "armv7l": "arm-a32"}
COMPILER = "compiler"
_PASSED_OVER = ("ccache", "nice", "time", "exec", "env")

Properties = tuple[tuple[str, str], ...]


def of_machine() -> Properties:
    """OSFamily and ISA of this one."""
    machine = os.uname().machine
    return (("OSFamily", "linux"), ("ISA", ISAS.get(machine, machine)))


def of_needs(needs: Iterable[tuple[str, str]]) -> Properties:
    """A Rakefile's `needs`; an architecture has a word in the interface already."""
    return tuple([("ISA", ISAS.get(value, value)) if key == "arch" else (key, value) for key, value in needs])


def to_needs(properties: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Those that a server judges by what it has at the moment; the engine has seen to the others."""
    return tuple([pair for pair in properties if pair[0] in ("mem", "cpu", "license")])


def merge(*groups: Properties) -> Properties:
    """Each once, sorted, as the interface wants them."""
    return tuple(sorted({pair for group in groups for pair in group}))


def program_of(command: str) -> str:
    """The compiler or linker that a command calls first; empty when it is none."""
    if kind_of(command) == OTHER:
        return ""
    words = command.split()
    while words and ("=" in words[0] or words[0] in _PASSED_OVER):
        del words[0]
    return words[0] if words else ""


def identity_of(family: str, release: str, target: str, parts: Iterable[bytes]) -> str:
    """A compiler's: `parts` are digests of what does the work, in order. Empty for what no compiler of ours says."""
    if family not in ("gcc", "clang") or not target or not release or not re.fullmatch(r"[\w.+-]+", target + release):
        return ""
    return f"{family}-{release}-{target}-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}"


def clang_release(told: str) -> str:
    """What `--version` names; empty for another compiler."""
    found = re.search(r"clang version ([\w.]+)", told)
    return found[1] if found else ""


class Identities:
    """Of the compilers on one PATH; each is asked once. Not for threads."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
        self._environ |= {b"LC_ALL": b"C", b"LANG": b"C"}
        self._known: dict[str, str] = {}

    def find(self, program: str) -> str:
        """The identity of the compiler of this name or path; empty when there is none."""
        if program not in self._known:
            self._known[program] = self._ask(program) if re.fullmatch(r"[\w.+/-]+", program) else ""
        return self._known[program]

    def all(self, programs: Sequence[str] = COMPILERS) -> tuple[str, ...]:
        """The different ones among these."""
        return tuple(sorted({identity for program in programs if (identity := self.find(program))}))

    def _ask(self, program: str) -> str:
        target = self._run(f"{program} -dumpmachine").strip()
        if release := clang_release(self._run(f"{program} --version")):
            parts = [self._run(f"command -v {program}").strip()]
            parts += re.findall(r"=> (/\S*(?:LLVM|clang)\S*)", self._run(f"ldd $(command -v {program})"))
            return identity_of("clang", release, target, map(self._digest, parts))
        parts = [self._run(f"{program} -print-prog-name={part}").strip() for part in _parts_of(program)]
        release = self._run(f"{program} -dumpfullversion").strip()
        return identity_of("gcc", release, target, map(self._digest, parts))

    def _run(self, command: str) -> str:
        """Standard output of a command that went well; empty of any other."""
        completed = process.run(command.encode(), self._environ, directory=b"/", timeout_s=ASK_S)
        try:
            if completed.ending != process.Exited(0):
                return ""
            return b"".join(completed.stdout.pieces()).decode("utf-8", "replace")
        finally:
            completed.close()

    def _digest(self, part: str) -> bytes:
        """Of the content; of the name, when there is no such file, so that it counts at least."""
        if not os.path.isabs(part):
            part = self._run(f"command -v {part}").strip()
        try:
            descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return part.encode()
        try:
            return hash_descriptor(descriptor)
        finally:
            os.close(descriptor)


def _parts_of(program: str) -> tuple[str, ...]:
    """What does the work behind a driver of gcc's."""
    return ("cc1plus" if os.path.basename(program).rstrip("-.0123456789").endswith("++") else "cc1", "as")
