"""What a compile may read: never less than the compiler's own -M says, and told as the compiler would find it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rakefarm.cc import depfile
from rakefarm.cc.closure import Closure, Walk, search_path
from rakefarm.cc.commandline import understand
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.toolchain import Toolchains, is_cxx


def closure_of(directory: Path, compiler: str, line: str) -> Closure:
    place = os.fsencode(directory)
    call = understand([os.fsencode(word) for word in line.split()], place, is_cxx(os.fsencode(compiler)), {})
    program = os.fsencode(str(shutil.which(compiler)))
    toolchain = Toolchains().find(program, call.language, call.search, {"PATH": os.environ["PATH"]})
    passed: set[bytes] = set()
    walk = Walk(FileCache(), search_path(call, place, toolchain.builtin, passed))
    macros = [word.value or b"" for word in call.words if word.text == b"-D"]
    found = walk.run(os.path.join(place, call.source), call.includes, place, macros)
    found.passed |= passed
    return found


def local_names(found: Closure, directory: Path) -> set[str]:
    place = os.fsencode(directory) + b"/"
    return {os.fsdecode(path[len(place) :]) for path in found.files if path.startswith(place)}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


SOURCES = {
    "gcc": "#include <stdio.h>\n#include <stdlib.h>\n#include <pthread.h>\n#include <sys/socket.h>\n#include <math.h>\n",
    "g++": "#include <iostream>\n#include <vector>\n#include <map>\n#include <thread>\n#include <regex>\n",
    "clang": "#include <stdio.h>\n#include <stdatomic.h>\n#include <limits.h>\n",
}


@pytest.mark.parametrize("compiler", SOURCES)
def test_no_less_than_the_compiler_says(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    name = "a.cc" if compiler == "g++" else "a.c"
    write(tmp_path, {name: SOURCES[compiler] + '#include "x/a.h"\n', "x/a.h": '#include "b.h"\n', "x/b.h": ""})
    told = subprocess.run([compiler, "-M", name], cwd=tmp_path, check=True, capture_output=True).stdout
    wanted = {os.path.normpath(os.path.join(os.fsencode(tmp_path), path)) for path in depfile.names(told)}
    found = closure_of(tmp_path, compiler, f"-c {name}")
    assert wanted <= set(found.files)
    assert local_names(found, tmp_path) == {name, "x/a.h", "x/b.h"}


def test_the_first_directory_wins_and_those_before_it_are_noted(tmp_path: Path) -> None:
    write(tmp_path, {"a.c": "#include <h.h>\n", "two/h.h": "", "three/h.h": "", "one/x": ""})
    found = closure_of(tmp_path, "gcc", "-Ione -Itwo -Ithree -c a.c")
    assert local_names(found, tmp_path) == {"a.c", "two/h.h"}
    assert os.fsencode(tmp_path / "one/h.h") in found.absent


def test_quotes_look_beside_the_includer_first_and_brackets_do_not(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"s/a.c": '#include "h.h"\n#include <k.h>\n', "s/h.h": "", "s/k.h": "", "i/h.h": "", "i/k.h": "", "q/q.h": ""},
    )
    assert local_names(closure_of(tmp_path, "gcc", "-Ii -c s/a.c"), tmp_path) == {"s/a.c", "s/h.h", "i/k.h"}


def test_forced_includes_are_looked_for_where_the_command_runs(tmp_path: Path) -> None:
    write(tmp_path, {"s/a.c": "", "config.h": '#include "more.h"\n', "more.h": "", "s/config.h": ""})
    found = closure_of(tmp_path, "gcc", "-include config.h -c s/a.c")
    assert local_names(found, tmp_path) == {"s/a.c", "config.h", "more.h"}


def test_include_next_may_be_any_of_them(tmp_path: Path) -> None:
    write(tmp_path, {"a.c": "#include <h.h>\n", "one/h.h": "#include_next <h.h>\n", "two/h.h": "", "three/h.h": ""})
    found = closure_of(tmp_path, "gcc", "-Ione -Itwo -Ithree -c a.c")
    assert local_names(found, tmp_path) == {"a.c", "one/h.h", "two/h.h", "three/h.h"}


def test_climbing_out_of_a_directory_needs_it(tmp_path: Path) -> None:
    write(tmp_path, {"b/a.c": '#include "../x/../h.h"\n', "h.h": "", "x/y": ""})
    found = closure_of(tmp_path, "gcc", "-c b/a.c")
    assert local_names(found, tmp_path) == {"b/a.c", "h.h"}
    assert os.fsencode(tmp_path / "x") in found.passed
    (tmp_path / "x/y").unlink()
    (tmp_path / "x").rmdir()
    assert local_names(closure_of(tmp_path, "gcc", "-c b/a.c"), tmp_path) == {"b/a.c"}


def test_climbing_out_of_a_link_stays_here(tmp_path: Path) -> None:
    write(tmp_path, {"b/a.c": '#include "../link/../h.h"\n', "far/x/y": "", "far/h.h": "", "h.h": ""})
    (tmp_path / "link").symlink_to(tmp_path / "far/x")
    with pytest.raises(Local) as caught:
        closure_of(tmp_path, "gcc", "-c b/a.c")
    assert caught.value.reason is Reason.SYMBOLIC_LINK


def test_one_directory_by_two_names_stays_here(tmp_path: Path) -> None:
    write(tmp_path, {"a.c": "", "real/h.h": ""})
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Local) as caught:
        closure_of(tmp_path, "gcc", "-Ilink -Ireal -c a.c")
    assert caught.value.reason is Reason.SYMBOLIC_LINK
    assert closure_of(tmp_path, "gcc", "-Ireal -I./real/ -c a.c")


@pytest.mark.parametrize(
    ("text", "reason"),
    [('asm(".incbin \\"x\\"");', Reason.EMBEDDED_FILE), ('#include "h.h"\n', Reason.PRECOMPILED_HEADER)],
)
def test_what_is_read_in_other_ways_stays_here(text: str, reason: Reason, tmp_path: Path) -> None:
    write(tmp_path, {"a.c": text, "h.h": "", "h.h.gch": ""})
    with pytest.raises(Local) as caught:
        closure_of(tmp_path, "gcc", "-c a.c")
    assert caught.value.reason is reason


COMPUTED = {
    # never defined, so never compiled
    "#ifdef M\n#include M\n#endif\n": (set(), False),
    "#define M <one.h>\n#define M2 <two.h>\n#include M\n": ({"i/one.h"}, False),
    '#if 1\n#define M "one.h"\n#else\n#define M <two.h> // that\n#endif\n#include M /* this */\n': (
        {"i/one.h", "i/two.h"}, False,
    ),
    "#include <names.h>\n#include TWO\n": ({"i/names.h", "i/two.h"}, False),
    "#define M N\n#include M\n": (set(), True),
    "#define M(x) <x>\n#include M(one.h)\n": (set(), True),
}  # fmt: skip


@pytest.mark.parametrize("text", COMPUTED)
def test_macros_that_name_a_file_are_followed(text: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.c": text, "i/one.h": "", "i/two.h": "", "i/names.h": "#define TWO <two.h>\n"})
    found = closure_of(tmp_path, "gcc", "-Ii -c a.c")
    assert (local_names(found, tmp_path) - {"a.c"}, found.computed) == COMPUTED[text]


def test_a_macro_of_the_command_line_is_for_the_compiler_to_tell(tmp_path: Path) -> None:
    write(tmp_path, {"a.c": "#include M\n"})
    assert closure_of(tmp_path, "gcc", "-DM=<x.h> -c a.c").computed
    assert not closure_of(tmp_path, "gcc", "-DMM=<x.h> -c a.c").computed


def test_a_header_that_appears_earlier_on_the_path_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"a.c": "#include <h.h>\n", "one/x": "", "two/h.h": ""})
    cache = FileCache()
    place = os.fsencode(tmp_path)
    call = understand([b"-Ione", b"-Itwo", b"-c", b"a.c"], place, False, {})
    for expected in ("two/h.h", "one/h.h"):
        walk = Walk(cache, search_path(call, place, (), set()))
        assert local_names(walk.run(place + b"/a.c", (), place, ()), tmp_path) == {"a.c", expected}
        write(tmp_path, {"one/h.h": ""})


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    cache = FileCache()
    path = tmp_path / "h.h"
    path.write_text("#include <a.h>")
    os.utime(path, ns=(1, 1))
    first = cache.look(os.fsencode(path))
    path.write_text("#include <b.h>")
    os.utime(path, ns=(1, 1))
    second = cache.look(os.fsencode(path))
    assert first is not None
    assert second is not None
    assert first.sha256 != second.sha256
    assert second.directives.includes[0].name == b"b.h"
