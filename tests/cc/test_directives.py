"""What a file may include, told from its text; never less than the preprocessor would find."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.cc.directives import Include, find_directives


def names(text: str) -> list[str]:
    return [include.name.decode() for include in find_directives(text.encode()).includes]


FOUND = {
    '#include "a.h"': ["a.h"],
    "#include <a.h>": ["a.h"],
    "  # \t include \t<a.h> // b": ["a.h"],
    "#import <a.h>": ["a.h"],
    "#/* c */include/* d */<a.h>": ["a.h"],
    "/* x */ #include <a.h>": ["a.h"],
    "#inc\\\nlude <a.h>": ["a.h"],
    "#include \\\n <a.h>": ["a.h"],
    "#include \\ \n <a.h>": ["a.h"],
    "#include \\\r\n <a.h>": ["a.h"],
    "%:include <a.h>": ["a.h"],
    "??=include <a.h>": ["a.h"],
    "#inc??/\nlude <a.h>": ["a.h"],
    "#if 0\n#include <a.h>\n#else\n#include <b.h>\n#endif": ["a.h", "b.h"],
    "#if __has_include(<a.h>)": ["a.h"],
    '#if defined X && __has_include ( "a.h" )': ["a.h"],
    '#pragma GCC dependency "a.h" rest': ["a.h"],
    "int include; // includes": [],
    "#pragma once": [],
    "#ifdef __has_include\n#endif": [],
}


@pytest.mark.parametrize("text", FOUND)
def test_found(text: str) -> None:
    assert names(text) == FOUND[text]
    directives = find_directives(text.encode())
    assert not directives.computed
    assert not directives.embeds


def test_quotes_and_include_next_are_told() -> None:
    found = find_directives(b'#include "a.h"\n#include_next <b.h>').includes
    assert found == (Include(b"a.h", True), Include(b"b.h", False, True))


@pytest.mark.parametrize("text", ["#include MACRO", "# include/**/MACRO(x)", "/*\n*/ #include MACRO", "#import M"])
def test_computed_includes_are_flagged(text: str) -> None:
    assert find_directives(text.encode()).computed


@pytest.mark.parametrize("text", ["see #include directives", "// #include MACRO", 'x = "#include y";'])
def test_prose_is_no_computed_include(text: str) -> None:
    assert not find_directives(text.encode()).computed


@pytest.mark.parametrize(
    "text", ['asm(".incbin \\"x\\"");', "#embed <x>", "#if __has_include(MACRO)\n#endif", '# embed "x" limit(3)']
)
def test_files_read_in_other_ways_are_flagged(text: str) -> None:
    assert find_directives(text.encode()).embeds


@pytest.mark.parametrize("text", ["__DATE__", "x __TIME__ y", "__TIMESTAMP__"])
def test_the_time_of_day_is_flagged(text: str) -> None:
    assert find_directives(text.encode()).time
    assert not find_directives(b"__FILE__ __LINE__ DATE").time


@given(st.text(alphabet="#\n\\ /*ab\"<>'?%:=", max_size=40), st.text(alphabet="\n \t", max_size=3))
def test_a_directive_on_a_line_of_its_own_is_found_in_any_text(before: str, blanks: str) -> None:
    """Unless what stands before swallows the line break: a splice, or the name of a header that is not closed."""
    if before.rstrip(" \t\f\v\r")[-1:] in ("\\", "/"):
        before += "x"
    assert "zz.h" in names(f"{before}\n{blanks}#include <zz.h>\n")


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(text: bytes) -> None:
    find_directives(text)
