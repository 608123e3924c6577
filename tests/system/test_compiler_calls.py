"""`rakefarm cc` with real servers and compilers: what comes back is what the compiler would have made here."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from calls_vocabulary import SLOW, SLOWLY, Calls
from farm_vocabulary import commands_on, open_server_under, small_disks_work
from server_vocabulary import Server, wait_until

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs gcc")


def fill(calls: Calls) -> None:
    calls.write("inc/h.h", "#include <assert.h>\n#include <stdio.h>\nstatic int f(int x) { assert(x); return x; }\n")
    calls.write("src/a.c", '#include "h.h"\nint main(void) { puts(__FILE__); return f(1); }\n')
    calls.write("src/b.cc", '#include <vector>\n#include "h.h"\nint g(std::vector<int> v) { return v.at(0); }\n')
    calls.write("build/x", "")


def test_all_that_is_made_is_what_the_compiler_makes(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    fill(calls)
    top = calls.path
    calls.check_same("gcc", "-g", "-O2", "-Wall", "-Iinc", "-MD", "-c", "src/a.c")
    calls.check_same("gcc", "-g", "-Wall", "-I../inc", "-MMD", "-MP", "-c", "../src/a.c", "-o", "o.o", where="build")
    calls.check_same(
        "g++", "-g", "-Wall", "-Wextra", f"-I{top}/inc", "-MD", "-MF", f"{top}/build/b.d", "-o", f"{top}/build/b.o",
        "-c", f"{top}/src/b.cc", where="build",
    )  # fmt: skip
    calls.check_same("gcc", "-Iinc", "-S", "-O2", f"{top}/src/a.c")
    calls.check_same("gcc", "-Iinc", "-g", "-gsplit-dwarf", "-fsanitize=undefined", "-c", "src/a.c", "-o", "build/s.o")
    counts = calls.statistics()
    assert counts["compiled"] == 5, counts
    assert counts["run"] == 0


LOOP = """
double sum(const double *a, int n) { double s = 0; for (int i = 0; i < n; i++) s += a[i] * a[i]; return s; }
"""


def test_this_processor_is_named_for_the_farm(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    calls.write("a.c", LOOP)
    calls.write("a.cc", LOOP)
    calls.check_same("gcc", "-O3", "-ffast-math", "-march=native", "-c", "a.c")
    calls.check_same("gcc", "-march=native", "-mtune=generic", "-mno-avx", "-O3", "-ffast-math", "-c", "a.c")
    calls.check_same("g++", "-O3", "-ffast-math", "-mno-avx2", "-mtune=native", "-S", "a.cc")
    counts = calls.statistics()
    assert (counts["compiled"], counts["run"]) == (3, 0)
    calls.check_same("gcc", "-g", "-O3", "-march=native", "-c", "a.c")
    if shutil.which("clang"):
        calls.check_same("clang", "-O3", "-march=native", "-c", "a.c")
    assert calls.statistics()["this_processor"] == 1 + bool(shutil.which("clang"))


COMPILERS = [name for name in ("gcc", "g++", "clang") if shutil.which(name)]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_is_not_sent_is_the_compilers_own_and_has_its_reason(
    calls: Calls, farm: tuple[Server, ...], compiler: str
) -> None:
    calls.hosts = [farm[0]]
    calls.write("a.c", '#include "h.h"\nint f(int x) { return x ? X : 0; }\n')
    calls.write("h.h", "#define X 1\n")
    calls.write("b.s", ".globl b\nb:\n")
    calls.write("c.S", '#include "h.h"\n.globl c\nc: .long X\n')
    calls.write("d.c", 'asm(".include \\"b.s\\"");\n')
    expected = {
        "saves_temporaries": ("-save-temps", "-c", "a.c"),
        "language": ("-c", "b.s"),
        "embedded_file": ("-c", "d.c"),
    }
    for words in (*expected.values(), ("-c", "c.S")):
        calls.check_same(compiler, *words)
    # What gcc makes for profiles has a stamp, and precompiled headers have addresses: another each time.
    assert calls.call(compiler, "-x", "c-header", "-c", "h.h", "-o", "p.gch") == (0, b"", b"")
    assert (calls.path / "p.gch").exists()
    assert calls.call(compiler, "--coverage", "-c", "a.c") == (0, b"", b"")
    assert calls.call(compiler, "-fprofile-generate", "-c", "a.c") == (0, b"", b"")
    assert (calls.path / "a.gcno").exists()
    counts = calls.statistics()
    wanted = dict.fromkeys(expected, 1) | {"profile": 2, "language": 2, "precompiled_header": 1}
    assert {name: counts.get(name) for name in wanted} == wanted
    calls.check_same(compiler, "-g", "-gsplit-dwarf", "-c", "a.c")
    calls.check_same(compiler, "-g", "-gsplit-dwarf", "-c", f"{calls.path}/a.c")
    counts = calls.statistics()
    assert (counts["compiled"], counts["fragile_option"]) == (1, 1)
    status, _, err = calls.call("-v", compiler, "-save-temps", "-c", "a.c")
    assert (status, err) == (0, b"rakefarm cc: here: it keeps intermediate files or dumps: -save-temps\n")


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_clang_makes_the_same_there_too(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    fill(calls)
    calls.check_same("clang", "-g", "-Wall", "-Iinc", "-MD", "-c", "src/a.c")
    calls.check_same("clang++", "-g", f"-I{calls.path}/inc", "-MD", "-c", f"{calls.path}/src/b.cc", where="build")
    assert calls.statistics()["compiled"] == 2


def test_failures_and_what_is_no_compile_are_the_compilers_own(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    fill(calls)
    calls.write("bad.c", "int main(void) { return y }\n")
    calls.check_same("gcc", "-c", "bad.c", status=1)
    calls.check_same("gcc", "-E", "bad.c")
    calls.check_same("gcc", "-c", "missing.c", status=1)
    calls.check_same("gcc", "-Iinc", "src/a.c", "-o", "a")
    counts = calls.statistics()
    assert (counts["compiled"], counts["failed_there"], counts["not_a_compile"], counts["unreadable"]) == (0, 1, 2, 1)
    assert calls.call("no-such-compiler", "-c", "a.c")[0] == 100


def test_odd_names_and_a_header_that_changes(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    calls.write("a b/ü'$x.c", '#include "h $.h"\nint x = X;\n')
    calls.write("a b/h $.h", "#define X 1\n")
    calls.check_same("gcc", "-MD", "-c", "a b/ü'$x.c", "-o", "o ' $.o")
    calls.write("a b/h $.h", "#define X 2\n")
    calls.check_same("gcc", "-MD", "-c", "a b/ü'$x.c", "-o", "o ' $.o")
    assert calls.statistics()["compiled"] == 2


def test_computed_includes_are_asked_of_the_compiler(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    calls.write("a.c", "#define H(x) <x/h.h>\n#include H(x)\nint x = X;\n")
    calls.write("inc/x/h.h", '#define X 1\n#include "k.h"\n')
    calls.write("inc/x/k.h", "")
    calls.check_same("gcc", "-Iinc", "-g", "-MD", "-c", "a.c")
    assert calls.statistics()["compiled"] == 1


def test_without_servers_it_compiles_here_and_says_so_once(calls: Calls) -> None:
    calls.write("a.c", "int x;\n")
    assert calls.call("gcc", "-c", "a.c") == (0, b"", b"")
    assert calls.statistics()["no_host"] == 1
    dead = {"RAKEFARM_HOSTS": "127.0.0.1:1"}
    status, out, err = calls.call("gcc", "-c", "a.c", env=dead)
    assert (status, out, err.count(b"\n")) == (0, b"", 1)
    assert b"no server" in err
    assert calls.call("gcc", "-c", "a.c", env=dead) == (0, b"", b"")
    status, _, err = calls.call("-v", "gcc", "-c", "a.c")
    assert (status, err) == (0, b"rakefarm cc: here: no host of the farm is named\n")


def test_a_killed_call_ends_its_command(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = [farm[0]]
    calls.write("a.cc", SLOW)
    call = calls.start("g++", *SLOWLY, "-c", "a.cc")
    wait_until(lambda: commands_on(farm[0]), "it compiles")
    call.kill()
    call.communicate()
    wait_until(lambda: not commands_on(farm[0]), "the command has ended", 1.5)
    assert not (calls.path / "a.o").exists()
    wait_until(lambda: calls.statistics().get("cancelled") == 1)


def test_a_killed_server_is_made_up_for(calls: Calls, start_server: Callable[..., Server]) -> None:
    first, second = start_server("--slots", "1"), start_server("--slots", "1")
    calls.hosts = [first, second]
    calls.write("a.cc", SLOW)
    call = calls.start("g++", *SLOWLY, "-c", "a.cc", "-o", "a.o")
    busy, other = wait_until(
        lambda: (commands_on(first) and (first, second)) or (commands_on(second) and (second, first)), "it compiles"
    )
    busy.process.kill()
    out, err = call.communicate(timeout=60)
    assert (call.returncode, out, err) == (0, b"", b"")
    assert calls.statistics()[other.address] == 1


@pytest.mark.slow
def test_a_server_that_hangs_is_left_after_three_beats_and_not_asked_again(
    calls: Calls, start_server: Callable[..., Server]
) -> None:
    server = start_server("--slots", "1")
    calls.hosts = [server]
    calls.write("a.c", "int x;\n")
    assert calls.call("gcc", "-c", "a.c") == (0, b"", b"")
    stopped = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    for process in stopped:
        process.suspend()
    try:
        for most_s in (10.0, 2.0):
            began = time.monotonic()
            assert calls.call("gcc", "-c", "a.c")[0] == 0
            assert time.monotonic() - began < most_s
    finally:
        for process in stopped:
            process.resume()
    assert calls.statistics()["no_server"] == 2


def test_a_killed_helper_is_replaced(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = [farm[0]]
    calls.write("a.cc", SLOW)
    calls.write("b.c", "int x;\n")
    assert calls.call("gcc", "-c", "b.c") == (0, b"", b"")
    call = calls.start("g++", *SLOWLY, "-c", "a.cc")
    wait_until(lambda: commands_on(farm[0]), "it compiles")
    _, told, _ = calls.call("--statistics")
    os.kill(int(told.split(b"process ")[1].split()[0]), signal.SIGKILL)
    assert call.communicate(timeout=60)[1] == b""
    assert call.returncode == 0
    assert (calls.path / "a.o").exists()
    assert calls.call("gcc", "-c", "b.c") == (0, b"", b"")
    assert calls.statistics()["compiled"] == 1


def test_many_at_once(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    for number in range(12):
        calls.write(f"{number}.c", f"int x{number} = {number};\n")
    with ThreadPoolExecutor(12) as pool:
        ended = list(pool.map(lambda number: calls.call("gcc", "-c", f"{number}.c"), range(12)))
    assert ended == [(0, b"", b"")] * 12
    assert calls.statistics()["compiled"] == 12


def test_the_compiled_launcher_stands_for_the_compiler(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    fill(calls)
    status, out, err = calls.call("--install-links", str(calls.scratch / "links"))
    assert status == 0, err
    links = {os.path.basename(line) for line in out.decode().splitlines()}
    assert links == {"cc", "gcc", "c++", "g++", "clang", "clang++"}
    variables = calls.environment()
    variables["PATH"] = f"{calls.scratch}/links:{variables['PATH']}"

    def run(*words: str) -> tuple[int, bytes, bytes]:
        ended = subprocess.run(words, cwd=calls.path, env=variables, capture_output=True, timeout=60)
        return ended.returncode, ended.stdout, ended.stderr

    assert run("gcc", "-Iinc", "-c", "src/a.c") == (0, b"", b"")
    assert run("gcc", "a.o", "-o", "a") == (0, b"", b"")
    assert run("gcc", "-c", "none.c")[0] == 1
    assert run(str(calls.scratch / "links/gcc"), "-Iinc", "-g", "-c", "src/a.c", "-o", "b.o") == (0, b"", b"")
    assert calls.statistics()["compiled"] == 2


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_run_sends_the_calls_of_a_whole_build(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    for name in "abc":
        calls.write(f"{name}.c", f"int {name};\n")
    calls.write("d.cc", "int main() { return 0; }\n")
    calls.write("Makefile", "prog: a.o b.o c.o d.o\n\t$(CXX) -o $@ $^\n")
    words = [sys.executable, "-m", "rakefarm", "run", "make", "-j"]
    ended = subprocess.run(words, cwd=calls.path, env=calls.environment(), capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert subprocess.run([calls.path / "prog"]).returncode == 0
    counts = calls.statistics()
    assert (counts["compiled"], counts["not_a_compile"]) == (4, 1)


@pytest.mark.skipif(not small_disks_work(), reason="this machine lets nobody mount")
def test_a_server_with_other_headers_is_sent_ours(
    calls: Calls, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Its own <assert.h> is another one; what it compiles is what we would have."""
    other = tmp_path / "assert.h"
    other.write_text("#define assert(x) other()\n")
    unshare = ["unshare", "-m"] if not os.geteuid() else ["unshare", "-Urm"]
    script = 'mount --bind "$1" /usr/include/assert.h && shift && exec "$@"'
    prefix = [*unshare, "sh", "-c", script, "sh", str(other)]
    server = start_server(opener=lambda place, *options: open_server_under(prefix, place, *options))
    calls.hosts = [server]
    fill(calls)
    calls.check_same("gcc", "-g", "-Iinc", "-MD", "-Wall", "-c", "src/a.c")
    calls.check_same("g++", "-g", "-I../inc", "-c", "../src/b.cc", "-MMD", where="build")
    calls.check_same("gcc", "-g3", f"-I{calls.path}/inc", "-c", f"{calls.path}/src/a.c")
    assert calls.statistics()["compiled"] == 3


@pytest.mark.skipif(not small_disks_work(), reason="this machine lets nobody mount")
def test_a_server_with_another_compiler_is_not_used(
    calls: Calls, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    other = tmp_path / "as"
    shutil.copy(str(shutil.which("as")), other)
    with other.open("ab") as file:
        file.write(b"another")
    unshare = ["unshare", "-m"] if not os.geteuid() else ["unshare", "-Urm"]
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    prefix = [*unshare, "sh", "-c", script, "sh", str(other), os.path.realpath(str(shutil.which("as")))]
    server = start_server(opener=lambda place, *options: open_server_under(prefix, place, *options))
    calls.hosts = [server]
    calls.write("a.c", "int x;\n")
    status, _, err = calls.call("-v", "gcc", "-c", "a.c")
    assert status == 0
    assert b"another here" in err
    with contextlib.suppress(KeyError):
        assert calls.statistics()["compiled"] == 0


@pytest.mark.skipif(not small_disks_work(), reason="this machine lets nobody mount")
def test_a_server_with_another_compiler_is_sent_ours(
    calls: Calls, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Its own compilers and assembler run nothing at all."""
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    found = [subprocess.run(["gcc", f"-print-prog-name={name}"], stdout=-1).stdout for name in ("cc1", "cc1plus", "as")]
    parts = [os.path.realpath(str(shutil.which(os.fsdecode(path.strip())))) for path in found]
    unshare = ["unshare", "-m"] if not os.geteuid() else ["unshare", "-Urm"]
    script = 'for part in "$2" "$3" "$4"; do mount --bind "$1" "$part" || exit; done; shift 4; exec "$@"'
    prefix = [*unshare, "sh", "-c", script, "sh", str(other), *parts]
    calls.hosts = [start_server(opener=lambda place, *options: open_server_under(prefix, place, *options))]
    calls.extra = {"RAKEFARM_SHIP_TOOLCHAIN": "1"}
    fill(calls)
    calls.check_same("gcc", "-g", "-O2", "-Iinc", "-MD", "-Wall", "-c", "src/a.c")
    calls.check_same("g++", "-g", "-I../inc", "-c", "../src/b.cc", "-MMD", where="build")
    calls.check_same("gcc", "-g3", f"-I{calls.path}/inc", "-c", f"{calls.path}/src/a.c")
    calls.check_same("gcc", "-O1", "-Iinc", "-S", "src/a.c")
    counts = calls.statistics()
    assert counts["compiled"] == 4, counts
    calls.extra = {"RAKEFARM_SHIP_TOOLCHAIN": "0"}
    assert b"another here" in calls.call("-v", "gcc", "-Iinc", "-c", "src/a.c")[2]
    assert b"write 1 or 0" in calls.call("-v", "gcc", "-c", "src/a.c", env={"RAKEFARM_SHIP_TOOLCHAIN": "yes"})[2]
