"""The grammar of paths on the wire, from a table and from random paths."""

import os.path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.paths import DEPTH, PART_BYTES, PATH_BYTES, check_path, check_paths, show

modest = settings(deadline=None, derandomize=True, max_examples=200)


def short(value: object) -> str:
    """A value as part of a test's name."""
    return repr(value)[:40]


GOOD = [
    b"a",
    b"main.o",
    b"sub/main.o",
    b".hidden",
    b"...",
    b"..a/a..",
    b" ",
    b"-rf",
    b"~",
    b"a b/c'd\"e",
    b"back\\slash",
    b"$HOME/*?",
    "zoë/名前.c".encode(),
    b"latin-\xe9",
    b"\x80\xff",
    b"p" * PART_BYTES,
    b"/".join([b"d"] * DEPTH),
    b"/".join([b"p" * 204] * 5),
]

BAD = [
    (b"", "an empty path"),
    (b"/", "absolute"),
    (b"/etc/passwd", "absolute"),
    (b"//a", "absolute"),
    (b".", "the part '.'"),
    (b"..", "the part '..'"),
    (b"../a", "the part '..'"),
    (b"a/../b", "the part '..'"),
    (b"a/..", "the part '..'"),
    (b"a/./b", "the part '.'"),
    (b"./a", "the part '.'"),
    (b"a//b", "the part ''"),
    (b"a/", "the part ''"),
    (b"a\x00b", "a control byte"),
    (b"a\nb", "a control byte"),
    (b"a\x1b[31mb", "a control byte"),
    (b"a\x7f", "a control byte"),
    (b"p" * (PART_BYTES + 1), f"more than {PART_BYTES} bytes"),
    (b"/".join([b"d"] * (DEPTH + 1)), f"deeper than {DEPTH} parts"),
    (b"/".join([b"p" * 204] * 5) + b"x", f"{PATH_BYTES + 1} bytes, more than {PATH_BYTES}"),
]


@pytest.mark.parametrize("path", GOOD, ids=short)
def test_a_good_path(path):
    check_path(path)
    check_paths([path])


@pytest.mark.parametrize(("path", "why"), BAD, ids=short)
def test_a_bad_path(path, why):
    for check in (check_path, lambda bad: check_paths([b"first", bad])):
        with pytest.raises(UnsafePath) as caught:
            check(path)
        assert why in str(caught.value)
        assert caught.value.code == "path"
        assert str(caught.value).isprintable(), "fit for a log"
        assert len(str(caught.value)) < 250


def test_the_longest_path_is_one_of_the_good_ones():
    assert max(map(len, GOOD)) == PATH_BYTES


@modest
@given(st.binary(max_size=40) | st.lists(st.sampled_from([b"a", b"..", b".", b"", b"b\x00", b"c"])).map(b"/".join))
def test_what_passes_stays_inside(path):
    """Whatever passes names a file below the directory it is joined to, by the one name that it has."""
    try:
        check_path(path)
    except UnsafePath:
        return
    joined = os.path.join(b"/box", path)
    assert os.path.normpath(joined) == joined
    assert joined.startswith(b"/box/")
    assert b"\x00" not in path


part = st.binary(min_size=1, max_size=8).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and min(name) >= 0x20 and 0x7F not in name
)


@modest
@given(st.lists(part, min_size=1, max_size=DEPTH))
def test_every_path_of_good_parts_passes(parts):
    check_path(b"/".join(parts))


PATH_SETS = [
    ([], None),
    ([b"a", b"b", b"a.o"], None),
    ([b"a/b", b"a/c", b"a.b"], None),
    ([b"a/b/c", b"a/b-c", b"ab"], None),
    ([b"a", b"a"], "'a' is named twice"),
    ([b"x/a", b"y", b"x/a"], "'x/a' is named twice"),
    ([b"a", b"a/b"], "'a' is a file and a directory"),
    ([b"a/b/c/d", b"a/b"], "'a/b' is a file and a directory"),
    ([b"a/b/x", b"a/b/y", b"a"], "'a' is a file and a directory"),
    ([b"ok", b"../bad"], "the part '..'"),
]


@pytest.mark.parametrize(("paths", "why"), PATH_SETS, ids=short)
def test_paths_of_one_tree(paths, why):
    if why is None:
        check_paths(paths)
        check_paths(iter(paths))
        return
    for order in (paths, paths[::-1]):
        with pytest.raises(UnsafePath) as caught:
            check_paths(order)
        assert why in str(caught.value)


@modest
@given(st.lists(st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4).map(b"/".join), max_size=6))
def test_paths_that_pass_can_be_made_as_a_tree(paths):
    """Against a plain model: no two alike, and none a proper beginning of another at a slash."""
    fits = len(set(paths)) == len(paths) and not any(
        longer.startswith(shorter + b"/") for longer in paths for shorter in paths
    )
    try:
        check_paths(paths)
    except UnsafePath:
        assert not fits
    else:
        assert fits


@modest
@given(st.binary(max_size=300))
def test_a_path_is_shown_on_one_short_line(path):
    text = show(path)
    assert text.isprintable() and len(text) <= 122
    assert text[0] == text[-1] == "'"


def test_a_path_is_shown_so_that_a_person_can_read_it():
    assert show("zoë.c".encode()) == "'zoë.c'"
    assert show(b"latin-\xe9") == "'latin-\\xe9'"
    assert show(b"two\nlines\x1b[0m") == "'two\\nlines\\x1b[0m'"
    assert show(b"x" * 200) == "'" + "x" * 117 + "...'"
