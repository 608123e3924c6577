"""The options of gcc and clang that matter here, as a table: how each takes its argument, and what it means for us.

What is not in the table is judged by its first letters: `-f…`, `-W…`, `-m…`, `-O…`, `-g…` and the like only steer the
compiler and go along; everything else is unknown, and keeps the call on this machine. The sources are the options
indexes of the manuals of gcc 4.8 to 14 and clang 3.9 to 18, and gcc's own `common.opt` and `c.opt`.
"""

from enum import Enum, auto
from functools import lru_cache

from msgspec import Struct

from rakefarm.cc.reasons import Reason


class Takes(Enum):
    """How an option takes its argument."""

    NOTHING = auto()
    JOINED = auto()  # -std=c99
    SEPARATE = auto()  # -Xclang WORD
    EITHER = auto()  # -I DIR, -IDIR


class Role(Enum):
    """What an option is to us."""

    PASS = auto()  # goes along as it is
    COMPILE = auto()  # -c
    ASSEMBLY = auto()  # -S
    OUTPUT = auto()  # -o
    LANGUAGE = auto()  # -x
    QUOTE = auto()  # a directory searched for "…"
    BRACKET = auto()  # … for <…>
    SYSTEM = auto()  # … as a system directory
    AFTER = auto()  # … after the system's own
    INCLUDE = auto()  # a file included before the source
    DEPENDENCIES = auto()  # -MD, -MMD
    DEPENDENCY_FILE = auto()  # -MF
    SEARCH = auto()  # changes the compiler's own search path
    PREFIX_MAP = auto()  # OLD=NEW
    PREPROCESSOR = auto()  # -Wp,
    ASSEMBLER = auto()  # -Wa,
    SPLIT_DEBUG = auto()  # -gsplit-dwarf
    PROCESSOR = auto()  # -march=, -mtune=, -mcpu=
    LINK_ONLY = auto()  # means nothing to a compile, and goes along
    LOCAL = auto()  # keeps the call here


class Option(Struct, frozen=True):
    """One row: `reason` is set where the role is LOCAL."""

    name: bytes
    takes: Takes
    role: Role
    reason: Reason | None = None


def _rows(takes: Takes, role: Role, names: bytes, reason: Reason | None = None) -> list[Option]:
    return [Option(name, takes, role, reason) for name in names.split()]


_ROWS = [
    *_rows(Takes.NOTHING, Role.COMPILE, b"-c"),
    *_rows(Takes.NOTHING, Role.ASSEMBLY, b"-S"),
    *_rows(Takes.EITHER, Role.OUTPUT, b"-o"),
    *_rows(Takes.EITHER, Role.LANGUAGE, b"-x"),
    *_rows(Takes.EITHER, Role.QUOTE, b"-iquote"),
    *_rows(Takes.EITHER, Role.BRACKET, b"-I"),
    *_rows(Takes.EITHER, Role.SYSTEM, b"-isystem"),
    *_rows(Takes.EITHER, Role.AFTER, b"-idirafter"),
    *_rows(Takes.EITHER, Role.INCLUDE, b"-include -imacros"),
    *_rows(Takes.NOTHING, Role.DEPENDENCIES, b"-MD -MMD"),
    *_rows(Takes.EITHER, Role.DEPENDENCY_FILE, b"-MF"),
    *_rows(Takes.EITHER, Role.PASS, b"-MT -MQ -D -U -A"),
    *_rows(Takes.NOTHING, Role.PASS, b"-MP -pipe -w -ansi -pedantic -pedantic-errors -pthread -trigraphs -undef"),
    *_rows(Takes.NOTHING, Role.PASS, b"-C -CC -P -H -rdynamic -Qunused-arguments -Qn -EL -EB -fPIC -fpic -fPIE -fpie"),
    *_rows(Takes.SEPARATE, Role.PASS, b"--param -mllvm"),
    *_rows(Takes.JOINED, Role.PASS, b"--param= -std= --std= -O -W -f -m -g"),
    *_rows(Takes.JOINED, Role.PROCESSOR, b"-march= -mtune= -mcpu="),
    *_rows(Takes.NOTHING, Role.PASS, b"-W -O"),
    *_rows(Takes.NOTHING, Role.SEARCH, b"-nostdinc -nostdinc++ -m32 -m64 -mx32 -m16"),
    *_rows(Takes.JOINED, Role.SEARCH, b"--sysroot= -stdlib= --target= -target= --gcc-toolchain= -mabi= -mfloat-abi="),
    *_rows(Takes.SEPARATE, Role.SEARCH, b"-target --sysroot -isysroot"),
    *_rows(Takes.JOINED, Role.PREFIX_MAP, b"-ffile-prefix-map= -fdebug-prefix-map= -fmacro-prefix-map="),
    *_rows(Takes.JOINED, Role.PREPROCESSOR, b"-Wp,"),
    *_rows(Takes.JOINED, Role.ASSEMBLER, b"-Wa,"),
    *_rows(Takes.NOTHING, Role.SPLIT_DEBUG, b"-gsplit-dwarf"),
    *_rows(Takes.JOINED, Role.SPLIT_DEBUG, b"-gsplit-dwarf="),
    # Of the linker.
    *_rows(Takes.JOINED, Role.LINK_ONLY, b"-Wl, -L -l -fuse-ld= -static -shared"),
    *_rows(Takes.SEPARATE, Role.LINK_ONLY, b"-L -l -T -u -z -e -Xlinker"),
    *_rows(Takes.NOTHING, Role.LINK_ONLY, b"-s -static -shared -nostdlib -nostartfiles -nodefaultlibs -pie -no-pie -r"),
    # What is no compile.
    *_rows(Takes.NOTHING, Role.LOCAL, b"-E -M -MM -MG -fsyntax-only -v -### -Q -V", Reason.NOT_A_COMPILE),
    *_rows(Takes.JOINED, Role.LOCAL, b"-print -dump --help --version --print -emit- --analyze", Reason.NOT_A_COMPILE),
    *_rows(Takes.NOTHING, Role.LOCAL, b"--emit-static-lib -fdirectives-only -fpreprocessed", Reason.NOT_A_COMPILE),
    # What this machine alone has, or what names its directories.
    *_rows(Takes.JOINED, Role.LOCAL, b"-save-temps --save-temps -fdump- -fopt-info -d -fcompare-debug -ftime-trace",
           Reason.SAVES_TEMPORARIES),
    *_rows(Takes.NOTHING, Role.LOCAL, b"-fstack-usage -fcallgraph-info -fmem-report -ftime-report -fverbose-asm",
           Reason.SAVES_TEMPORARIES),
    *_rows(Takes.JOINED, Role.LOCAL, b"-fcallgraph-info= -aux-info -foptimization-record-file="
           b" -fsave-optimization-record -fdiagnostics-format= -fdiagnostics-add-output= --serialize-diagnostics"
           b" -fproc-stat-report -fdeps-",
           Reason.SAVES_TEMPORARIES),
    *_rows(Takes.NOTHING, Role.LOCAL, b"--coverage -coverage -fprofile-arcs -ftest-coverage -pg -p",
           Reason.PROFILE),
    *_rows(Takes.JOINED, Role.LOCAL, b"-fprofile- -fauto-profile -fbranch-probabilities -fcs-profile-"
           b" -fcondition-coverage -fcoverage- -fpath-coverage", Reason.PROFILE),
    *_rows(Takes.JOINED, Role.LOCAL, b"-flto -fwhopr -fthinlto", Reason.LINK_TIME),
    *_rows(Takes.JOINED, Role.LOCAL, b"-fplugin -specs --specs -B -wrapper -fpass-plugin -fload -Xclang -cc1 -cc1as"
           b" -fsanitize-blacklist= -fsanitize-ignorelist= -fprofile-list= -fxray- -no-canonical-prefixes",
           Reason.PLUGIN),
    *_rows(Takes.JOINED, Role.LOCAL, b"-fmodule -fcxx-modules -fpch -include-pch -emit-pch -fimplicit-module"
           b" -fprebuilt-module", Reason.PRECOMPILED_HEADER),
    *_rows(Takes.JOINED, Role.LOCAL, b"-iprefix -iwithprefix -imultilib -iframework -F -I- -imsvc -ivfsoverlay"
           b" -iplugindir= -working-directory -fworking-directory -dumpdir -dumpbase -Xpreprocessor -Xassembler -Xarch"
           b" -frecord-gcc-switches -frecord-command-line -grecord-command-line -fdebug-compilation-dir"
           b" -ffile-compilation-dir -gen-cdb-fragment-path -gstabs -gxcoff -gvms -gcodeview", Reason.UNKNOWN_OPTION),
]  # fmt: skip

_EXACT: dict[bytes, Option] = {}
_BY_PREFIX: dict[bytes, Option] = {}
for _row in _ROWS:
    if _row.takes is not Takes.JOINED:
        _EXACT[_row.name] = _row
    if _row.takes in (Takes.JOINED, Takes.EITHER):
        _BY_PREFIX[_row.name] = _row
_LENGTHS = sorted({len(name) for name in _BY_PREFIX}, reverse=True)

FRAGILE = (b"-fsanitize", b"-gdwarf-2", b"-gdwarf-3", b"-gdwarf-4", b"-gsplit-dwarf")
"""Safe with relative names only: what they record is not touched by prefix maps (sanitizers), or is laid out in another
way when a map has applied (tables of lines before DWARF 5). Measured with gcc 12."""


@lru_cache(maxsize=4096)
def find_option(word: bytes) -> tuple[Option, bytes | None] | None:
    """The row of an argument that begins with `-`, and its joined value (None: the next word is the value, or there is
    none). None for an option that nobody knows; the longest name wins."""
    row = _EXACT.get(word)
    if row is not None:
        return row, None
    for length in _LENGTHS:
        if length <= len(word):
            row = _BY_PREFIX.get(word[:length])
            if row is not None:
                return row, word[length:]
    return None
