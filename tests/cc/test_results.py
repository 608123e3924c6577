"""Earlier results: found when nothing differs that a compile depends on, and never when something does."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rakefarm.cc.dialogue import Request
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.inquiry import Inquiry, find_inputs, inquire
from rakefarm.cc.misses import Cause
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.results import Lookup, Made, Results
from rakefarm.cc.toolchain import Toolchains
from rakefarm.records import RecordStore

MADE = Made(b"a warning\n", (b"object", b"a.o: a.c\n"))
TOOLCHAINS = Toolchains()


class Project:
    """A user's directory, its calls, and a result cache."""

    def __init__(self, path: Path, compiler: str) -> None:
        self.path = path
        self.compiler = compiler
        self.words = [
            compiler,
            "-g",
            "-O2",
            "-MD",
            "-Ione",
            "-Itwo",
            "-iquote",
            "q",
            "-DX=1",
            "-c",
            "s/a.c",
            "-o",
            "a.o",
        ]
        self.environ = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        self.directory = path
        self.terminal = False
        self.results = Results(RecordStore(str(path / "cache"), 16 << 20), FileCache())
        self.toolchains = TOOLCHAINS

    def write(self, name: str, text: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name("beside")
        beside.write_text(text)
        beside.replace(target)

    def inquire(self) -> Inquiry:
        words = tuple(os.fsencode(word) for word in self.words)
        return inquire(Request(0o022, self.terminal, os.fsencode(self.directory), words, self.environ), self.toolchains)

    def look(self) -> tuple[Made | None, Lookup]:
        """As the helper does: without a walk, and then by what the walk finds."""
        inquiry = self.inquire()
        lookup = self.results.find(inquiry)
        if lookup.made is not None:
            return lookup.made, lookup
        closure = find_inputs(inquiry, self.results._files)
        return self.results.find_by_inputs(lookup, closure)[1], lookup

    def compile(self, made: Made = MADE) -> None:
        """A compile that went well, as far as the cache knows."""
        inquiry = self.inquire()
        lookup = self.results.find(inquiry)
        closure = find_inputs(inquiry, self.results._files)
        key, found = self.results.find_by_inputs(lookup, closure)
        assert found is None
        self.results.keep(inquiry, lookup, key, closure, made)


@pytest.fixture(params=["gcc", "clang"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    if shutil.which(request.param) is None:
        pytest.skip(f"needs {request.param}, which is not installed")
    made = Project(tmp_path, request.param)
    made.write("s/a.c", '#include "beside.h"\n#include <two.h>\n#if __has_include("maybe.h")\n#endif\n#include "q.h"\n')
    for name in ("s/beside.h", "two/two.h", "q/q.h", "two/other.h"):
        made.write(name, f"/* {name} */\n#include <stddef.h>\n")
    for name in ("one", "elsewhere"):
        (tmp_path / name).mkdir()
    made.write("s/b.c", "int b;\n")
    return made


def test_the_same_call_is_found_again_also_by_another_process(project: Project) -> None:
    assert project.look()[0] is None
    project.compile()
    made, lookup = project.look()
    assert made == lookup.made == MADE
    project.results = Results(RecordStore(str(project.path / "cache"), 16 << 20), FileCache())
    assert project.look()[1].made == MADE


def without(word: str) -> Callable[[Project], None]:
    return lambda project: project.words.remove(word)


def words(*more: str) -> Callable[[Project], None]:
    return lambda project: project.words.extend(more)


def variable(name: str, value: str) -> Callable[[Project], None]:
    return lambda project: project.environ.update({name: value})


def text(name: str, content: str = "int changed;\n") -> Callable[[Project], None]:
    return lambda project: project.write(name, content)


def removed(name: str) -> Callable[[Project], None]:
    return lambda project: (project.path / name).unlink()


def another_compiler(project: Project) -> None:
    """The same path, the same words about itself, and another binary."""
    project.toolchains = Toolchains()
    real = os.path.realpath(str(shutil.which(project.compiler)))
    place = project.path / "bin"
    place.mkdir(exist_ok=True)
    beside = place / "beside"
    beside.write_text(f'#!/bin/sh\nexec {real} "$@"\n# {len(list(place.iterdir()))}\n')
    beside.chmod(0o755)
    beside.replace(place / project.compiler)


def elsewhere(project: Project) -> None:
    project.directory = project.path / "elsewhere"
    project.words = [
        "../" + word if word in ("s/a.c", "q", "a.o") else word.replace("-I", "-I../") for word in project.words
    ]


MUTATIONS: Mapping[str, tuple[Callable[[Project], None], Cause]] = {
    "source": (text("s/a.c", '#include "beside.h"\n'), Cause.INPUTS),
    "header beside the source": (text("s/beside.h"), Cause.INPUTS),
    "header of -I": (text("two/two.h"), Cause.INPUTS),
    "header of -iquote": (text("q/q.h"), Cause.INPUTS),
    "same size": (text("two/two.h", "/* tw*/two.h */\n#include <stddef.h>\n"), Cause.INPUTS),
    "a header that is gone": (removed("q/q.h"), Cause.MISSING),
    "earlier -I": (text("one/two.h"), Cause.APPEARED),
    "quote include beside the source": (text("s/q.h"), Cause.APPEARED),
    "__has_include in the last place": (text("two/maybe.h"), Cause.APPEARED),
    "__has_include beside": (text("s/maybe.h"), Cause.APPEARED),
    "-O": (words("-O1"), Cause.ARGUMENTS),
    "-D": (words("-DY"), Cause.ARGUMENTS),
    "value of -D": (lambda p: p.words.__setitem__(p.words.index("-DX=1"), "-DX=2"), Cause.ARGUMENTS),
    "-U": (words("-UX"), Cause.ARGUMENTS),
    "-W": (words("-Wall"), Cause.ARGUMENTS),
    "-std": (words("-std=c99"), Cause.ARGUMENTS),
    "-f": (words("-fPIC"), Cause.ARGUMENTS),
    "-m": (words("-mavx2"), Cause.ARGUMENTS),
    "-m32": (words("-m16"), Cause.ARGUMENTS),
    "-g": (without("-g"), Cause.ARGUMENTS),
    "-include": (words("-include", "two/other.h"), Cause.ARGUMENTS),
    "-I": (words("-Ielsewhere"), Cause.ARGUMENTS),
    "order of -I": (
        lambda p: p.words.__setitem__(slice(4, 6), ["-Itwo", "-Ione"]), Cause.ARGUMENTS,
    ),
    "-isystem": (words("-isystem", "elsewhere"), Cause.ARGUMENTS),
    "-MMD": (lambda p: p.words.__setitem__(3, "-MMD"), Cause.ARGUMENTS),
    "-MP": (words("-MP"), Cause.ARGUMENTS),
    "-MT": (words("-MT", "x"), Cause.ARGUMENTS),
    "-o, which the dependency file names": (lambda p: p.words.__setitem__(-1, "b.o"), Cause.ARGUMENTS),
    "-S": (words("-S"), Cause.ARGUMENTS),
    "-x": (lambda p: p.words.__setitem__(slice(1, 1), ["-x", "c++"]), Cause.COMPILER),
    "--param": (words("--param", "ggc-min-expand=10"), Cause.ARGUMENTS),
    "-Wp": (words("-Wp,-DZ"), Cause.ARGUMENTS),
    "-Wa": (words("-Wa,--noexecstack"), Cause.ARGUMENTS),
    "prefix map": (words("-ffile-prefix-map=/a=/b"), Cause.ARGUMENTS),
    "another source": (lambda p: p.words.__setitem__(p.words.index("s/a.c"), "s/b.c"), Cause.NEW),
    "LC_ALL": (variable("LC_ALL", "C.UTF-8"), Cause.VARIABLES),
    "LANG": (variable("LANG", "de_DE.UTF-8"), Cause.VARIABLES),
    "SOURCE_DATE_EPOCH": (variable("SOURCE_DATE_EPOCH", "1"), Cause.VARIABLES),
    "TZ": (variable("TZ", "Asia/Tokyo"), Cause.VARIABLES),
    "GCC_COLORS": (variable("GCC_COLORS", "error=1"), Cause.VARIABLES),
    "a terminal": (
        lambda p: (setattr(p, "terminal", True), p.environ.update(TERM="xterm"))[0], Cause.ARGUMENTS,
    ),
    "directory": (elsewhere, Cause.ARGUMENTS),
    "name of the directory": (
        lambda p: (os.symlink(p.path, p.path.parent / "link"), p.environ.update(PWD=str(p.path.parent / "link")))[0],
        Cause.NEW,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_whatever_changes_a_result_must_miss(project: Project, name: str) -> None:
    project.compile()
    assert project.look()[0] == MADE
    mutate, cause = MUTATIONS[name]
    mutate(project)
    try:
        made, lookup = project.look()
    finally:
        (project.path.parent / "link").unlink(missing_ok=True)
    assert made is None
    if name == "-x" and project.compiler == "clang":
        cause = Cause.ARGUMENTS  # one program for both languages
    assert lookup.miss.cause is cause, lookup.miss


@pytest.mark.parametrize("name", ["CPATH", "C_INCLUDE_PATH", "GCC_EXEC_PREFIX", "COMPILER_PATH", "DEPENDENCIES_OUTPUT"])
def test_variables_that_change_what_is_read_keep_the_call_here(project: Project, name: str) -> None:
    project.compile()
    project.environ[name] = str(project.path)
    with pytest.raises(Local) as caught:
        project.look()
    assert caught.value.reason is Reason.ENVIRONMENT


def test_a_compiler_of_the_same_path_and_words_is_another_one(project: Project) -> None:
    another_compiler(project)
    project.environ["PATH"] = f"{project.path}/bin:{os.environ['PATH']}"
    project.compile()
    assert project.look()[0] == MADE
    another_compiler(project)
    made, lookup = project.look()
    assert made is None
    assert lookup.miss.cause is Cause.COMPILER


@pytest.mark.parametrize("mutate", [
    text("q/beside.h"), text("one/unheard-of.h"), words("-MF", "x.d"), variable("UNHEARD_OF", "1"),
    lambda project: os.utime(project.path / "s/a.c", (5, 5)), lambda project: (project.path / "s/a.c").chmod(0o600),
])  # fmt: skip
def test_what_changes_nothing_is_found(project: Project, mutate: Callable[[Project], None]) -> None:
    project.compile()
    mutate(project)
    assert project.look()[0] == MADE


def test_an_object_goes_by_any_name_where_nothing_records_it(project: Project) -> None:
    project.words = [project.compiler, "-g", "-c", "s/b.c", "-o", "a.o"]
    project.compile()
    project.words[-1] = "b.o"
    assert project.look()[0] == MADE
    project.words.insert(1, "-gsplit-dwarf")
    project.compile()
    project.words[-1] = "a.o"
    assert project.look()[0] is None


def test_going_back_to_an_earlier_state_finds_its_result(project: Project) -> None:
    project.compile()
    before = (project.path / "two/two.h").read_text()
    project.write("two/two.h", "#include <other.h>\n")
    project.compile(Made(b"", (b"another", b"")))
    assert project.look()[1].made == Made(b"", (b"another", b""))
    project.write("two/two.h", before)
    assert project.look()[1].made == MADE


def test_a_directory_that_is_made_later_may_hold_a_header(project: Project) -> None:
    project.write("s/b.c", '#include "../later/../h.h"\n')
    project.write("h.h", "")
    project.words = [project.compiler, "-Inone", "-c", "s/b.c"]
    project.compile()
    assert project.look()[0] == MADE
    (project.path / "later").mkdir()
    assert project.look()[0] is None
    (project.path / "later").rmdir()
    assert project.look()[0] == MADE
    project.write("none/x.h", "")
    assert project.look()[0] is None


def test_a_precompiled_header_that_appears_keeps_the_call_here(project: Project) -> None:
    project.compile()
    project.write("two/two.h.gch", "")
    with pytest.raises(Local) as caught:
        project.look()
    assert caught.value.reason is Reason.PRECOMPILED_HEADER


def test_the_time_of_day_is_cached_only_when_it_is_given(project: Project) -> None:
    project.write("two/two.h", "const char *t = __TIME__;\n")
    with pytest.raises(Local) as caught:
        project.look()
    assert caught.value.reason is Reason.TIME_OF_DAY
    project.environ["SOURCE_DATE_EPOCH"] = "1"
    project.compile()
    assert project.look()[0] == MADE
    os.utime(project.path / "s/a.c", (5, 5))
    assert project.look()[0] == MADE
    del project.environ["SOURCE_DATE_EPOCH"]
    with pytest.raises(Local):
        project.look()


@pytest.mark.parametrize("line", ["const char *t = __TIMESTAMP__;\n", '#pragma GCC dependency "beside.h"\n'])
def test_times_of_files_count_where_a_source_asks_for_them(project: Project, line: str) -> None:
    project.environ["SOURCE_DATE_EPOCH"] = "1"
    project.write("s/b.c", line)
    project.words = [project.compiler, "-c", "s/b.c"]
    project.compile()
    assert project.look()[0] == MADE
    os.utime(project.path / "s/b.c", (5, 5))
    assert project.look()[0] is None


def test_times_count_for_files_of_one_content(project: Project) -> None:
    """gcc takes two such files for one file, and includes it once, when their times are equal, too."""
    project.write("s/b.c", "#import <one.h>\n#import <two.h>\n")
    for name in ("one/one.h", "two/two.h"):
        project.write(name, "int again(int);\n")
        os.utime(project.path / name, (5, 5))
    project.words = [project.compiler, "-Ione", "-Itwo", "-c", "s/b.c"]
    project.compile()
    assert project.look()[0] == MADE
    os.utime(project.path / "two/two.h", (6, 6))
    assert project.look()[0] is None


def test_a_damaged_result_is_compiled_again(project: Project) -> None:
    project.compile()
    records = [path for path in (project.path / "cache").glob("??/*") if b"object" in path.read_bytes()]
    for path in records:
        path.chmod(0o600)
        path.write_bytes(path.read_bytes().replace(b"object", b"objekt"))
    made, lookup = project.look()
    assert made is None
    assert lookup.miss.cause is Cause.EVICTED
    assert len(records) == 1
    assert not records[0].exists()
