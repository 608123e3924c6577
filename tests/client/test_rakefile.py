"""The Rakefile language, point by point, then properties over generated and over arbitrary files."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.client.rakefile import (
    Action,
    Rakefile,
    RakefileError,
    parse_rakefile,
    parse_size,
    read_rakefile,
)
from rakefarm.client.rakefile_lines import LineError, words
from rakefarm.hosts import Host


def parse(text: str) -> Rakefile:
    return parse_rakefile(text.encode("utf-8", "surrogateescape"))


def actions(text: str) -> list[Action]:
    """The actions of a file that is nothing but one set with these lines."""
    (only,) = parse("set:\n" + text).sets
    return list(only.actions)


def commands(text: str) -> list[str]:
    return [action.command for action in actions(text)]


def requires(text: str) -> list[tuple[str, ...]]:
    return [action.requires for action in actions(text)]


def warned(text: str) -> list[tuple[int, int]]:
    return [(each.line, each.column) for each in parse(text).warnings]


TYPICAL = """\
# A typical Rakefile
PORT  = 6238
HOSTS = one two three:6333

compile:
\techo starting
\tremote-cc -c program.c
\t\trequires program.c program.h

link:
\tremote-cc -o program program.o
\t\trequires program.o
"""


def test_a_typical_file() -> None:
    rakefile = parse(TYPICAL)
    assert rakefile.path == "Rakefile"
    assert rakefile.port == 6238
    assert [host.address for host in rakefile.hosts] == ["one:6238", "two:6238", "three:6333"]
    assert [(each.name, each.line) for each in rakefile.sets] == [("compile", 5), ("link", 10)]
    assert rakefile.sets[0].actions == (
        Action("echo starting", False, 6),
        Action("cc -c program.c", True, 7, ("program.c", "program.h")),
    )
    assert rakefile.warnings == ()


# 1. Bytes


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.rstrip(b"\n"),
        lambda data: data.replace(b"\n", b" \t\n"),
    ],
    ids=["byte-order mark", "CRLF", "no last newline", "trailing blanks"],
)
def test_line_ends_and_marks_change_nothing(change: Callable[[bytes], bytes]) -> None:
    assert parse_rakefile(change(TYPICAL.encode())) == parse(TYPICAL)


def test_bytes_that_are_not_utf8_survive() -> None:
    data = b"s\xff:\n\techo \xfe '\xe9'\n\t\trequires \xe9.c '\xfd b'\n"
    (only,) = parse_rakefile(data).sets
    assert os.fsencode(only.name) == b"s\xff"
    assert os.fsencode(only.actions[0].command) == b"echo \xfe '\xe9'"
    assert [os.fsencode(name) for name in only.actions[0].requires] == [b"\xe9.c", b"\xfd b"]


def test_only_ascii_white_space_separates() -> None:
    assert requires("\tx\n\t\trequires a\u00a0b.c\tc\u2028d\x85e f\x1cg\n") == [
        ("a\u00a0b.c", "c\u2028d\x85e", "f\x1cg")
    ]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# only\n", b"\xef\xbb\xbf", b" \t\r\n", b"\t# indented"])
def test_a_file_may_say_nothing(data: bytes) -> None:
    assert parse_rakefile(data) == Rakefile("Rakefile", 6238, (), (), ())


# 2. Comments and empty lines


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("echo a # b", "echo a"),
        ("echo a\t# b", "echo a"),
        ("echo a#b", "echo a#b"),
        ("echo $# # n", "echo $#"),
        ("echo '#' \"# x\" # c", "echo '#' \"# x\""),
        ("echo ' # ' b", "echo ' # ' b"),
        (r"echo \# a", r"echo \# a"),
        (r"echo \ # a", r"echo \ # a"),
        (r"echo \  # a", "echo \\"),
        (r"echo '\' # a", r"echo '\'"),
        ('echo "\\" # a" # b', 'echo "\\" # a"'),
        ("echo 'it'\\''s # in' # out", "echo 'it'\\''s # in'"),
        ("echo ${x#y} # c", "echo ${x#y}"),
        ("echo ${x:- # y}", "echo ${x:- # y}"),
        ('echo "$(echo "a # b")" # c', 'echo "$(echo "a # b")"'),
        ('echo "`echo " # "`" # c', 'echo "`echo " # "`"'),
        ("(cd a; make) # c", "(cd a; make)"),
        ("echo it's # not a comment: the quote is open", "echo it's # not a comment: the quote is open"),
        ("case $x in a) echo # c", "case $x in a) echo"),
        ("echo )  #c", "echo )"),
        ("remote-cc a.c # c", "cc a.c"),
        ("echo  two   blanks  ", "echo  two   blanks"),
        ("cc [optional-flags] a.c", "cc [optional-flags] a.c"),
        ("echo a \\", "echo a \\"),
    ],
)
def test_what_of_an_action_reaches_the_shell(line: str, command: str) -> None:
    assert commands(f"\t{line}\n") == [command]


def test_comments_and_empty_lines_do_not_end_a_set() -> None:
    text = "\n# column one\n  # less\n\ta\n \n\t\t# deep\n\t\trequires x\n\n\t# level\n\t\trequires y\n\tb\n"
    assert actions(text) == [Action("a", False, 5, ("x", "y")), Action("b", False, 12)]


def test_any_hash_starts_a_comment_elsewhere() -> None:
    rakefile = parse("PORT=7#x\nHOSTS=a#b\nset:# c\n\tx\n\t\trequires a#b c\n\t\trequires#none\n")
    assert rakefile.port == 7
    assert rakefile.hosts == (Host("a", 7),)
    assert rakefile.sets[0].name == "set"
    assert rakefile.sets[0].actions[0].requires == ("a",)


# 3. Settings


@pytest.mark.parametrize(
    "line", ["PORT=80", "PORT =80", "PORT= 80", "PORT\t=\t80  # c", "PORT = 0080", "PORT=1\nPORT=80"]
)
def test_port(line: str) -> None:
    assert parse(line).port == 80


def test_hosts_append_and_take_the_port_of_the_whole_file() -> None:
    rakefile = parse("HOSTS = a b:1\nHOST = [::1], [::1]:2 192.0.2.7/3\nHOSTS =\nPORT = 7\n")
    assert rakefile.hosts == (
        Host("a", 7),
        Host("b", 1),
        Host("::1", 7),
        Host("::1", 2),
        Host("192.0.2.7", 7, 3),
    )


def test_a_server_is_its_name_and_port() -> None:
    rakefile = parse("PORT = 7\nHOSTS = a a:7 a:8\nHOSTS = b/2 a b/2 b\n")
    assert rakefile.hosts == (Host("a", 7), Host("a", 8), Host("b", 7, 2))
    assert rakefile.warnings == ()


def test_the_later_slots_of_a_server_hold_with_a_warning() -> None:
    rakefile = parse("HOSTS = b/2 a\nHOSTS = b:6238/4\n")
    assert rakefile.hosts == (Host("b", 6238, 4), Host("a", 6238))
    assert [(each.line, each.column) for each in rakefile.warnings] == [(2, 9)]


def test_settings_inside_a_set_do_not_end_it() -> None:
    assert len(actions("\ta\nPORT = 80\n\tb\n")) == 2


def test_an_unknown_key_is_a_warning() -> None:
    rakefile = parse("HOSTZ = a\nport = 1\nset:\n\tx\n")
    assert [(each.line, each.column) for each in rakefile.warnings] == [(1, 1), (2, 1)]
    assert "'HOSTZ'" in rakefile.warnings[0].text


# 4. Headers


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("actionset1:", "actionset1"),
        ("0:", "0"),
        ("build all the things :", "build all the things"),
        ("a:b:", "a:b"),
        ("a=b:", "a=b"),
        ("übung:  # c", "übung"),
        ("PORT:", "PORT"),
    ],
)
def test_any_name_is_a_header(line: str, name: str) -> None:
    assert [each.name for each in parse(line).sets] == [name]


def test_sets_keep_file_order_and_may_be_empty_or_repeat() -> None:
    rakefile = parse("b9:\nb2:\n\tx\nb9:\n\ty\n")
    assert [(each.name, len(each.actions)) for each in rakefile.sets] == [("b9", 0), ("b2", 1), ("b9", 1)]
    assert [(each.line, each.column) for each in rakefile.warnings] == [(4, 1)]
    assert "line 1" in rakefile.warnings[0].text


# 5. Indentation


@pytest.mark.parametrize(
    ("base", "deep"),
    [
        ("\t", "\t\t"),
        ("    ", "        "),
        (" " * 8, " " * 16),
        ("  ", "    "),
        ("\t", " " * 8),
        (" " * 4, "\t\t"),
        (" ", "   "),
        ("\t", "\t  "),
        (" " * 8, " " * 12),
        (" " * 5, " " * 8),
        ("  \t", "\t\t"),
        ("   ", "     "),
    ],
)
def test_deeper_lines_belong_to_the_action_above(base: str, deep: str) -> None:
    text = f"{base}a\n{deep}requires x\n{deep}timeout 5\n{base}b\n{deep}timeout 6\n"
    assert actions(text) == [
        Action("a", False, 2, ("x",), timeout_s=5.0),
        Action("b", False, 5, timeout_s=6.0),
    ]


@pytest.mark.parametrize(("base", "more"), [("\t", "     "), (" ", "  "), (" " * 8, " " * 11), (" " * 5, " " * 7)])
def test_lines_not_deep_enough_are_actions(base: str, more: str) -> None:
    assert commands(f"{base}a\n{more}timeout 5 b\n c\n") == ["a", "timeout 5 b", "c"]


def test_each_set_has_its_own_base() -> None:
    rakefile = parse("a:\n  x\n    requires 1\nb:\n        y\n                requires 2\n")
    assert [each.actions[0].requires for each in rakefile.sets] == [("1",), ("2",)]


@pytest.mark.parametrize("word", ["requires", "require", "required"])
@pytest.mark.parametrize("indent", [" ", "\t", "\t\t"])
def test_requires_counts_at_any_depth(word: str, indent: str) -> None:
    assert requires(f"\ta\n{indent}{word} x y\n") == [("x", "y")]


def test_a_deep_line_without_a_known_word_is_names_with_a_warning() -> None:
    assert requires("\ta\n\t\trequires x\n\t\ty z\n") == [("x", "y", "z")]
    assert warned("set:\n\ta\n\t\ty z\n") == [(3, 3)]


# 6. Requires


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        ("", ()),
        (" # none", ()),
        (" a  b\tc", ("a", "b", "c")),
        (" 'a b' \"c d\" e\\ f", ("a b", "c d", "e f")),
        (" a'b'\"c\"\\d", ("abcd",)),
        (""" "a\\"b" "c\\\\d" "e\\nf" '\\' """, ('a"b', "c\\d", "e\\nf", "\\")),
        (" 'it'\\''s'", ("it's",)),
        (" include/**/*.h [ab]?.c {a,b} ~x $y", ("include/**/*.h", "[ab]?.c", "{a,b}", "~x", "$y")),
        (" ./a ../b /c", ("./a", "../b", "/c")),
        (" a a", ("a", "a")),
        (" übung.c", ("übung.c",)),
    ],
)
def test_requires(rest: str, names: tuple[str, ...]) -> None:
    assert requires(f"\tx\n\t\trequires{rest}\n") == [names]


def test_several_requires_lines_add_up() -> None:
    assert requires("\tx\n\t\trequires a\n\trequires b\n\t\trequires\n\ty\n") == [("a", "b"), ()]


# 7. Actions


@pytest.mark.parametrize(
    ("line", "command", "remote", "warnings"),
    [
        ("remote-cc -c a.c", "cc -c a.c", True, 0),
        ("remote-remote-cc", "remote-cc", True, 0),
        ("remote- cc", "cc", True, 0),
        ("remote cc -c a.c", "cc -c a.c", True, 1),
        ("remote\tcc", "cc", True, 1),
        ("remote remote-cc", "remote-cc", True, 1),
        ("remote-./gen > t", "./gen > t", True, 0),
        ("remotely x", "remotely x", False, 0),
        ("'remote-cc' x", "'remote-cc' x", False, 0),
        ("REMOTE-cc", "REMOTE-cc", False, 0),
        ("requiresx y", "requiresx y", False, 0),
        ("needs mem=2G", "needs mem=2G", False, 1),
        ("repeatable", "repeatable", False, 1),
        ("timeout 5 cc", "timeout 5 cc", False, 0),
        ("a = b", "a = b", False, 0),
        ("inner:", "inner:", False, 0),
    ],
)
def test_actions(line: str, command: str, remote: bool, warnings: int) -> None:
    assert actions(f"\t{line}\n") == [Action(command, remote, 2)]
    assert len(warned(f"set:\n\t{line}\n")) == warnings


# 8. Produces, needs, timeout, repeatable


def test_the_extensions() -> None:
    lines = [
        "produces a 'b c'",
        "produces d",
        "needs mem=2G cpu=2 # c",
        "needs license=acme gpu e=",
        "timeout 2.5",
        "repeatable # c",
    ]
    text = "\tx\n" + "".join(f"\t\t{line}\n" for line in lines)
    assert actions(text) == [
        Action(
            "x",
            False,
            2,
            (),
            ("a", "b c", "d"),
            (("mem", "2G"), ("cpu", "2"), ("license", "acme"), ("gpu", ""), ("e", "")),
            2.5,
            True,
        )
    ]


def test_produces_may_declare_nothing() -> None:
    assert actions("\tx\n\t\tproduces\n\ty\n") == [Action("x", False, 2, produces=()), Action("y", False, 4)]


def test_the_last_timeout_holds_with_a_warning() -> None:
    text = "\tx\n\t\ttimeout 1\n\t\ttimeout .5\n"
    assert [each.timeout_s for each in actions(text)] == [0.5]
    assert warned("set:\n" + text) == [(4, 3)]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1", 1), ("1K", 1024), ("512M", 512 << 20), ("2G", 2 << 30), ("1t", 1 << 40), ("007k", 7168)]
    + [(bad, None) for bad in ("", "0", "0G", "-1", "1.5G", "2GB", "G", "1 G", "٣", "9" * 5000, "9999999T")],
)
def test_sizes(text: str, size_bytes: int | None) -> None:
    assert parse_size(text) == size_bytes


# Errors


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("PORT = x", 1, 8, "PORT"),
        ("PORT =", 1, 7, "PORT"),
        ("PORT=0", 1, 6, "1 to 65535"),
        ("PORT=65536", 1, 6, "65535"),
        ("PORT = 1 2", 1, 8, "one number"),
        ("PORT = " + "9" * 5000, 1, 8, "PORT"),
        ("\nHOSTS = a b:x c", 2, 11, "'b:x' has a port"),
        ("HOSTS = a,::1", 1, 11, "brackets"),
        ("PORT", 1, 1, "neither"),
        ("remote-cc a.c", 1, 1, "must be indented"),
        ("set: cc a.c", 1, 6, "after the colon"),
        (":", 1, 1, "without a name"),
        (" : # c", 1, 2, "before any 'name:' header"),
        ("\tcc a.c", 1, 2, "before any 'name:' header"),
        ("PORT=1\n\n    PORT = 2", 3, 5, "before any 'name:' header"),
        ("a:\n\tx\nb:\n\t\trequires y", 4, 3, "requires line before any action"),
        ("a:\n\tremote-", 2, 2, "without a command"),
        ("a:\n\tremote", 2, 2, "without a command"),
        ("a:\n\tremote- # c", 2, 2, "without a command"),
        ("a:\n\tx\n\t\trequires b 'c", 3, 14, "isn't closed"),
        ("a:\n\tx\n\t\trequires 'b#c'", 3, 12, "any # starts a comment"),
        ("a:\n\tx\n\t\trequires b \\", 3, 14, "backslash"),
        ("a:\n\tx\n\t\trequires b ''", 3, 14, "empty name"),
        ('a:\n\tx\n\t\tproduces "b', 3, 12, "isn't closed"),
        ("a:\n\tx\n\t\tneeds cpu=1 mem=2GB", 3, 15, "mem wants"),
        ("a:\n\tx\n\t\tneeds mem", 3, 9, "mem wants"),
        ("a:\n\tx\n\t\tneeds cpu=0", 3, 9, "cpu wants"),
        ("a:\n\tx\n\t\tneeds cpu", 3, 9, "cpu wants"),
        ("a:\n\tx\n\t\tneeds =x", 3, 9, "KEY=VALUE"),
        ("a:\n\tx\n\t\trepeatable yes", 3, 14, "repeatable stands alone, without 'yes'"),
        ("a:\n\tx\n\t\trepeatable 'b", 3, 14, "isn't closed"),
        ("a:\n\tx\n\t\ttimeout", 3, 10, "timeout wants one number"),
        ("a:\n\tx\n\t\ttimeout 1 2", 3, 13, "timeout wants one number"),
        *[
            (f"a:\n\tx\n\t\ttimeout {bad}", 3, 11, "timeout wants seconds")
            for bad in (
                "0",
                "0.0",
                "-1",
                "nan",
                "inf",
                "1e3",
                "1_0",
                "5s",
                ".",
                "٣",
                "9" * 400,
                "0." + "0" * 400,
            )
        ],
        ("a:\n\techo \0", 2, 7, "NUL"),
        ("\ufeff\0", 1, 1, "NUL"),
    ],
)
def test_an_error_names_its_place(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(RakefileError) as caught:
        parse_rakefile(text.encode(), "dir/Rakefile")
    error = caught.value
    assert (error.line, error.column) == (line, column)
    assert says in error.text
    assert str(error) == f"dir/Rakefile:{line}:{column}: {error.text}"
    assert str(error).isprintable()
    assert len(error.errors) == 1


def test_several_errors_are_collected_without_echoes() -> None:
    text = "\trequires x\n\ty\n\t\trequires z\nPORT = 0\n"  # lines 1 to 4
    text += "broken header\n\tx\n\t\trequires y\na:\n\tremote-\n\t\trequires z\n"  # lines 5 to 10
    with pytest.raises(RakefileError) as caught:
        parse(text)
    assert [each.line for each in caught.value.errors] == [1, 4, 5, 9]


def test_a_file_full_of_errors_stops_at_twenty() -> None:
    with pytest.raises(RakefileError) as caught:
        parse("x\n" * 1000)
    assert len(caught.value.errors) == 20


def test_utf16_is_named() -> None:
    with pytest.raises(RakefileError, match="UTF-16"):
        parse_rakefile("set:\n".encode("utf-16"))


# Files


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "Rakefile"
    path.write_text(TYPICAL)
    assert read_rakefile(str(path)).sets == parse(TYPICAL).sets
    assert read_rakefile(str(path)).path == str(path)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    cases = {"absent": "no such file", ".": "is a directory", "loop": "can't be read", "a\0": "possible path"}
    for name, says in cases.items():
        path = f"{tmp_path}/{name}"
        with pytest.raises(RakefileError, match=says) as caught:
            read_rakefile(path)
        assert str(caught.value) == f"{path}: {caught.value.text}"
        assert caught.value.line == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_file_without_permission_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "Rakefile"
    path.touch(mode=0)
    with pytest.raises(RakefileError, match="may not be read"):
        read_rakefile(str(path))


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(RakefileError, match="larger than"):
        read_rakefile("/dev/zero")


# Properties


def test_ten_thousand_actions() -> None:
    line = "\tremote-cc -O2 -c src/{0}.c -o {0}.o  # object {0}\n\t\trequires src/{0}.c include/a.h 'b c'\n"
    (only,) = parse("set:\n" + "".join(map(line.format, range(10_000)))).sets
    assert len(only.actions) == 10_000
    assert only.actions[-1].requires == ("src/9999.c", "include/a.h", "b c")


SIGNS = list("\n\t #'\"\\:=`),/\0\ufeff\u00e91")
LINES = ["set:\n", "set:\n\tx\n", "PORT", "HOSTS", "\r\n", "    ", "$("]
WORDS = ["requires ", "remote-", "produces ", "needs ", "timeout ", "repeatable", "mem="]
LANGUAGE = st.sampled_from(SIGNS + LINES + WORDS)


@given(st.binary() | st.lists(LANGUAGE).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_parse_or_are_a_rakefile_error(data: bytes) -> None:
    try:
        rakefile = parse_rakefile(data)
    except RakefileError as error:
        assert 1 <= len(error.errors) <= 20
        assert str(error).isprintable()
        assert all(each.line >= 1 and each.column >= 1 for each in error.errors)
        return
    assert all(host.port for host in rakefile.hosts)
    for each in rakefile.sets:
        for action in each.actions:
            assert os.fsencode(action.command) in data
            assert action.command.strip()
            assert all(action.requires)


NAME = st.text(
    st.characters(exclude_characters="\0\n#", codec="utf-8")
    | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    min_size=1,
)


@given(NAME)
def test_words_unquote_what_shlex_quotes(name: str) -> None:
    assert [word.text for word in words(f"  {shlex.quote(name)} x", 2)] == [name, "x"]


@given(st.text(alphabet="ab '\"\\\t", max_size=20))
def test_words_agree_with_shlex(line: str) -> None:
    try:
        expected = shlex.split(line)
    except ValueError:
        expected = [""]  # refused, as empty words are
    if "" in expected:
        with pytest.raises(LineError):
            words(line, 0)
    else:
        assert [word.text for word in words(line, 0)] == expected


COMMAND = st.lists(NAME.map(shlex.quote), min_size=1, max_size=4).map(" ".join).map(lambda text: "run " + text)
DRAFT = st.tuples(COMMAND, st.booleans(), st.lists(NAME, max_size=4))


@given(
    st.lists(st.lists(DRAFT, max_size=4), max_size=3),
    st.sampled_from([("\t", "\t\t"), ("  ", "    "), ("    ", "        "), ("        ", " " * 16)]),
    st.sampled_from(["\n", "\r\n", "\n\n", "  \n"]),
)
def test_a_written_file_reads_back(
    sets: list[list[tuple[str, bool, list[str]]]], indent: tuple[str, str], end: str
) -> None:
    text = f"HOSTS = a{end}"
    for number, drafts in enumerate(sets):
        text += f"set{number}:{end}"
        for command, remote, names in drafts:
            text += indent[0] + ("remote-" if remote else "") + command + end
            text += indent[1] + " ".join(["requires", *map(shlex.quote, names)]) + end
    rakefile = parse(text)
    assert [
        [(action.command, action.remote, list(action.requires)) for action in each.actions] for each in rakefile.sets
    ] == sets
    assert rakefile.warnings == ()
