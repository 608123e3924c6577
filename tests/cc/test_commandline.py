"""Which compiler calls are sent, what they read and make, and why the others stay here."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.cc.commandline import Call, understand
from rakefarm.cc.options import _ROWS, Role, Takes, find_option
from rakefarm.cc.reasons import Local, Reason


def read(line: str, cxx: bool = False, **environ: str) -> Call:
    return understand([os.fsencode(word) for word in line.split()], b"/nowhere", cxx, environ)


def reason(line: str, cxx: bool = False, **environ: str) -> Reason:
    with pytest.raises(Local) as caught:
        read(line, cxx, **environ)
    return caught.value.reason


SENT = {
    "-c a.c": (b"a.o",),
    "-S a.c": (b"a.s",),
    "-c -S a.c": (b"a.s",),
    "-c dir/a.c": (b"a.o",),
    "-c a.c -o b/x.o": (b"b/x.o",),
    "-ob/x.o -c a.c": (b"b/x.o",),
    "-c a.b.c": (b"a.b.o",),
    "-c a.c -MD": (b"a.o", b"a.d"),
    "-c a.c -MMD -o b/x.lo": (b"b/x.lo", b"b/x.d"),
    "-c a.c -MD -MF deps/a.Po -MT a.o -MP": (b"a.o", b"deps/a.Po"),
    "-c a.c -MMD -MQ a.o -MFx.d": (b"a.o", b"x.d"),
    "-c a.c -Wp,-MMD,dir/.a.o.d": (b"a.o", b"dir/.a.o.d"),
    "-c a.c -Wp,-MD,x.d -o y.o": (b"y.o", b"x.d"),
    "-c a.c -g -gsplit-dwarf": (b"a.o", b"a.dwo"),
    "-c a.c -gsplit-dwarf -MD -o o/b.o": (b"o/b.o", b"o/b.dwo", b"o/b.d"),
    "-x c++ -c a.txt": (b"a.o",),
    "-xc -c a": (b"a.o",),
    "-c a.c -O2 -Wall -std=gnu99 -fPIC -m64 -pthread -DX=1 -D Y -UZ -Wl,-E -lm -L. -L lib -Wa,--noexecstack": (b"a.o",),
    "-c a.c --param max-inline-insns=5 --param=x=1 -pipe -march=x86-64-v2 -w -ansi": (b"a.o",),
}


@pytest.mark.parametrize("line", SENT)
def test_compiles_are_sent_and_make_what_the_compiler_makes(line: str) -> None:
    assert read(line).outputs == SENT[line]


KEPT = {
    "a.o b.o -o a": Reason.NOT_A_COMPILE,
    "-E a.c": Reason.NOT_A_COMPILE,
    "-M a.c": Reason.NOT_A_COMPILE,
    "-c -MM a.c": Reason.NOT_A_COMPILE,
    "-c -MF x.d a.c": Reason.NOT_A_COMPILE,
    "-fsyntax-only a.c": Reason.NOT_A_COMPILE,
    "--version": Reason.NOT_A_COMPILE,
    "-print-file-name=x": Reason.NOT_A_COMPILE,
    "-dumpmachine": Reason.NOT_A_COMPILE,
    "-v -c a.c": Reason.NOT_A_COMPILE,
    "-### -c a.c": Reason.NOT_A_COMPILE,
    "-c": Reason.NO_SOURCE,
    "-c a.c b.c": Reason.SEVERAL_SOURCES,
    "-c -": Reason.STANDARD_INPUT,
    "-c -xc -": Reason.STANDARD_INPUT,
    "-c a.c -o -": Reason.STANDARD_OUTPUT,
    "-c a.c -o /dev/null": Reason.STANDARD_OUTPUT,
    "-c a.c -MD -MF -": Reason.STANDARD_OUTPUT,
    "-c a.c -o a.c": Reason.STANDARD_OUTPUT,
    "-c a.s": Reason.LANGUAGE,
    "-c a.S": Reason.LANGUAGE,
    "-c a.m": Reason.LANGUAGE,
    "-c a.i": Reason.LANGUAGE,
    "-c a.o": Reason.LANGUAGE,
    "-x c-header -c a.h": Reason.PRECOMPILED_HEADER,
    "-x c++-header a.h -c -o a.h.gch": Reason.PRECOMPILED_HEADER,
    "-c a.c -include-pch x": Reason.PRECOMPILED_HEADER,
    "-c a.cc -fmodules-ts": Reason.PRECOMPILED_HEADER,
    "-c a.c -fprofile-arcs": Reason.PROFILE,
    "-c a.c -fprofile-use=x": Reason.PROFILE,
    "-c a.c --coverage": Reason.PROFILE,
    "-c a.c -flto=auto": Reason.LINK_TIME,
    "-c a.c -save-temps=obj": Reason.SAVES_TEMPORARIES,
    "-c a.c -fdump-tree-all": Reason.SAVES_TEMPORARIES,
    "-c a.c -dD": Reason.SAVES_TEMPORARIES,
    "-c a.c -fplugin=x.so": Reason.PLUGIN,
    "-c a.c -specs=x": Reason.PLUGIN,
    "-c a.c -B. ": Reason.PLUGIN,
    "-c a.c -Xclang x": Reason.PLUGIN,
    "-c a.c -iprefix /x": Reason.UNKNOWN_OPTION,
    "-c a.c -I- ": Reason.UNKNOWN_OPTION,
    "-c a.c -I=/x": Reason.UNKNOWN_OPTION,
    "-c a.c -qwerty": Reason.UNKNOWN_OPTION,
    "-c a.c -Wa,-I.": Reason.UNKNOWN_OPTION,
    "-c a.c -Wp,-imacros,x": Reason.UNKNOWN_OPTION,
    "-c a.c -frecord-gcc-switches": Reason.UNKNOWN_OPTION,
    "-c a.c -o": Reason.NOT_A_COMPILE,
    "-c a.c -o x -o y": Reason.UNKNOWN_OPTION,
    "-c /p/a.c -fsanitize=address": Reason.FRAGILE_OPTION,
    "-c a.c -I/p -gdwarf-4": Reason.FRAGILE_OPTION,
    "-c a.c -o /p/a.o -gsplit-dwarf": Reason.FRAGILE_OPTION,
    "@missing -c a.c": Reason.RESPONSE_FILE,
}


@pytest.mark.parametrize("line", KEPT)
def test_what_stays_here_and_why(line: str) -> None:
    assert reason(line) is KEPT[line]


def test_the_language_is_the_sources_and_the_compilers() -> None:
    assert read("-c a.c").language == b"c"
    assert read("-c a.c", cxx=True).language == b"c++"
    assert read("-x c -c a.c", cxx=True).language == b"c"
    for name in ("a.cc", "a.cpp", "a.cxx", "a.C", "a.c++"):
        assert read(f"-c {name}").language == b"c++"
    assert read("-x c++ -x none -c a.c").language == b"c"


def test_directories_keep_their_order_and_kind() -> None:
    call = read("-Ia -I b -iquote q -isystem s -isystems2 -idirafter z -include x.h -imacros y.h -c a.c")
    assert (call.quote, call.bracket, call.system, call.after) == ((b"q",), (b"a", b"b"), (b"s", b"s2"), (b"z",))
    assert call.includes == (b"x.h", b"y.h")


def test_words_are_written_as_they_were() -> None:
    line = "-Ia -I b -O2 -DX=1 -D Y -c src/a.c -o out.o --param x=1 -Wp,-DZ"
    written = [each for word in read(line).words for each in word.written()]
    assert written == [word.encode() for word in line.split()]


def test_options_that_change_the_search_path_are_told() -> None:
    assert read("-m32 -nostdinc --sysroot=/x -isysroot /y -c a.c").search == (
        b"-m32", b"-nostdinc", b"--sysroot=/x", b"-isysroot", b"/y",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["CPATH", "C_INCLUDE_PATH", "DEPENDENCIES_OUTPUT", "GCC_EXEC_PREFIX", "COMPILER_PATH"])
def test_variables_that_the_compiler_obeys_keep_a_call_here(name: str) -> None:
    assert reason("-c a.c", **{name: "x"}) is Reason.ENVIRONMENT
    assert read("-c a.c", **{name: ""})


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: f"{row.name.decode()}-{row.takes.name}")
def test_every_option_of_the_table_is_found_by_its_name(row: object) -> None:
    found = find_option(row.name)  # type: ignore[attr-defined]
    assert found is not None
    option, value = found
    if option is not row:  # another row of the same name takes its argument in another way
        assert option.name == row.name  # type: ignore[attr-defined]
    if option.takes is not Takes.JOINED:
        assert value is None


def test_a_response_file_stands_for_its_words(tmp_path: os.PathLike[str]) -> None:
    inner = os.path.join(tmp_path, "inner")
    with open(os.path.join(tmp_path, "outer"), "w", encoding="utf-8") as file:
        file.write(f"-DX='a b' @{inner}\n")
    with open(inner, "w", encoding="utf-8") as file:
        file.write('-c "a c.c"')
    call = understand([b"@outer"], os.fsencode(tmp_path), False, {})
    assert call.source == b"a c.c"
    assert call.words[0].value == b"X=a b"


WORDS = st.sampled_from(
    b"-c -S -E -o x.o a.c b.cc -I -Ix - -MD -MF -x c none -D -Wp,-MD,x -include -g -gsplit-dwarf /abs/a.c -O2 @x -- -Wa,"
    b" -Wp,".split(b" ")
)


@given(st.lists(st.one_of(WORDS, st.binary(max_size=8).filter(lambda word: b"\0" not in word)), max_size=12))
def test_any_words_are_understood_or_kept(words: list[bytes]) -> None:
    """No command line is answered with anything but a call of one source, all of whose words are there, or Local."""
    try:
        call = understand(words, b"/nowhere", False, {})
    except Local:
        return
    assert [each for word in call.words for each in word.written()] == words
    assert sum(word.role is None for word in call.words) == 1
    assert call.outputs
    assert not any(word.role is Role.LOCAL for word in call.words)
