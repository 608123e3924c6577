"""`rakefarm cc` by an engine in this process: what comes back is what the compiler would have made here."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from calls_vocabulary import SLOW, SLOWLY, Calls, open_calls
from server_vocabulary import wait_until
from small_engine import SmallEngine, small_engine

from rakefarm.cc import engine_farm, layout
from rakefarm.cc.cancel import Cancel
from rakefarm.cc.dialogue import Request
from rakefarm.cc.engine_attempt import EngineAttempt
from rakefarm.cc.engine_farm import EngineFarm
from rakefarm.cc.engine_package import identity
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.inquiry import find_inputs, inquire
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.scratch import Scratch
from rakefarm.cc.toolchain import Toolchains, find_compiler
from rakefarm.config import ClientSettings, EngineSettings
from rakefarm.engine.properties import Identities

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs gcc")
PATH = os.environ["PATH"]


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Calls]:
    with open_calls(tmp_path) as made:
        yield made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SmallEngine]:
    with small_engine(tmp_path / "boxes") as made:
        yield made


def fill(calls: Calls, engine: SmallEngine) -> None:
    calls.extra["RAKEFARM_ENGINE"] = engine.url
    calls.write("inc/h.h", "#include <assert.h>\n#include <stdio.h>\nstatic int f(int x) { assert(x); return x; }\n")
    calls.write("src/a.c", '#include "h.h"\nint main(void) { puts(__FILE__); return f(1); }\n')
    calls.write("src/b.cc", '#include <vector>\n#include "h.h"\nint g(std::vector<int> v) { return v.at(0); }\n')
    calls.write("build/x", "")


def test_all_that_is_made_is_what_the_compiler_makes(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    top = calls.path
    calls.check_same("gcc", "-g", "-O2", "-Wall", "-Iinc", "-MD", "-c", "src/a.c")
    calls.check_same("gcc", "-g", "-Wall", "-I../inc", "-MMD", "-MP", "-c", "../src/a.c", "-o", "o.o", where="build")
    calls.check_same(
        "g++", "-g", "-Wall", "-Wextra", f"-I{top}/inc", "-MD", "-MF", f"{top}/build/b.d", "-o", f"{top}/build/b.o",
        "-c", f"{top}/src/b.cc", where="build",
    )  # fmt: skip
    counts = calls.statistics()
    assert (counts["compiled"], counts["run"]) == (3, 0), counts
    assert counts[engine.url] == 3
    compilers = [asked["compiler"] for asked in engine.asked]
    known = Identities({"PATH": PATH})
    assert compilers == [known.find("gcc"), known.find("gcc"), known.find("g++")]
    assert all(asked["OSFamily"] == "linux" for asked in engine.asked)


def test_the_option_names_it_for_one_call(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    calls.extra["RAKEFARM_ENGINE"] = ""
    status, _, err = calls.call("-v", "--engine", engine.url, "gcc", "-Iinc", "-c", "src/a.c")
    assert status == 0 and f"on {engine.url}".encode() in err, err
    assert len(engine.asked) == 1


def test_make_runs_as_many_as_the_engine_may_have(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    calls.write("Makefile", "all: a.o\n\t@echo flags: $(MAKEFLAGS)\na.o: src/a.c\n\tgcc -Iinc -c $< -o $@\n")
    words = [sys.executable, "-m", "rakefarm", "run", "make", "-j"]
    done = subprocess.run(words, cwd=calls.path, env=calls.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^flags: .*-j64", done.stdout, re.MULTILINE), done.stdout
    assert len(engine.asked) == 1


def test_hosts_that_are_named_come_before_a_files_engine(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    calls.extra["RAKEFARM_ENGINE"] = ""
    (calls.scratch / ".config/rakefarm").mkdir(parents=True)
    (calls.scratch / ".config/rakefarm/client.toml").write_text(f'[engine]\nurl = "{engine.url}"\n')
    assert calls.call("gcc", "-Iinc", "-c", "src/a.c", env={"RAKEFARM_HOSTS": "127.0.0.1:1"})[0] == 0
    assert not engine.asked
    assert calls.call("gcc", "-Iinc", "-c", "src/a.c")[0] == 0
    assert len(engine.asked) == 1


def test_the_engines_cache_answers_who_keeps_results(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    words = ("gcc", "-g", "-O2", "-Iinc", "-MD", "-c", "src/a.c")
    made = []
    for user in ("one", "two"):
        env = {"RAKEFARM_RESULT_CACHE": str(calls.scratch / user), "RAKEFARM_RESULT_CACHE_SIZE": "100M"}
        assert calls.call(*words, env=env) == (0, b"", b"")
        made.append({name: (calls.path / name).read_bytes() for name in ("a.o", "a.d")})
    assert made[0] == made[1] and len(engine.asked) == 1
    counts = calls.statistics()
    assert (counts["compiled"], counts["served"], counts["run"]) == (1, 1, 0), counts
    # Who keeps none gets none: it is compiled anew.
    assert calls.call(*words) == (0, b"", b"")
    assert len(engine.asked) == 2


def test_an_error_is_the_compilers_own(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    calls.write("bad.c", "int f(void) { return x; }\n")
    calls.check_same("gcc", "-c", "bad.c", status=1)
    calls.check_same("gcc", "-c", "lacking.c", status=1)
    assert calls.statistics()["failed_there"] == 1


OTHER_SYSTEM = 'sha256sum() { grep -q /usr/include/stdio.h "$2" && return 1; command sha256sum "$@"; }; '


def test_a_worker_with_other_headers_is_sent_ours(calls: Calls, tmp_path: Path) -> None:
    with small_engine(tmp_path / "boxes", prologue=OTHER_SYSTEM) as engine:
        fill(calls, engine)
        calls.check_same("gcc", "-g", "-O2", "-Iinc", "-MD", "-c", "src/a.c")
        assert len(engine.asked) == 2, "once to hear of it, once with them"
        calls.check_same("gcc", "-g", "-O3", "-Iinc", "-MD", "-c", "src/a.c")
        assert len(engine.asked) == 3, "it is remembered"
        counts = calls.statistics()
        assert (counts["compiled"], counts["run"]) == (2, 0), counts


def test_a_worker_with_another_compiler_makes_nothing(calls: Calls, tmp_path: Path) -> None:
    with small_engine(tmp_path / "boxes", prologue="sha256sum() { return 1; }; ") as engine:
        fill(calls, engine)
        status, _, err = calls.call("gcc", "-Iinc", "-c", "src/a.c")
        assert status == 0 and b"its workers have another system than this one" in err, err
        assert calls.statistics()["no_server"] == 1


def test_a_header_that_a_worker_has_and_we_have_not(calls: Calls, tmp_path: Path) -> None:
    """As if /usr/local/include/stdio.h were there: a name that was looked for in vain here."""
    prologue = "xargs() { echo /usr/local/include/stdio.h; }; "
    with small_engine(tmp_path / "boxes", prologue=prologue) as engine:
        fill(calls, engine)
        assert calls.call("gcc", "-Iinc", "-c", "src/a.c")[0] == 0
        assert len(engine.asked) == 2


def test_where_nobody_listens_it_runs_here_with_one_line(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        calls.extra["RAKEFARM_ENGINE"] = f"grpc://127.0.0.1:{sock.getsockname()[1]}"
        said = []
        for number in range(3):
            status, out, err = calls.call("gcc", "-Iinc", "-c", "src/a.c", "-o", f"{number}.o")
            assert (status, out) == (0, b"")
            said += err.splitlines()
    (line,) = said
    assert line.startswith(b"rakefarm cc: here: no server of the farm could run it: grpc://127.0.0.1:"), line
    assert calls.statistics()["no_server"] == 3


def test_an_address_that_is_none_is_one_line(calls: Calls) -> None:
    calls.write("a.c", "int a;\n")
    calls.extra["RAKEFARM_ENGINE"] = "http://lab"
    said = [calls.call("gcc", "-c", "a.c") for _ in range(2)]
    assert [status for status, _, _ in said] == [0, 0]
    assert b"'http://lab' is no address of an engine" in said[0][2] and not said[1][2]


def test_a_killed_call_ends_its_operation(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    calls.write("slow.cc", SLOW)
    call = calls.start("g++", *SLOWLY, "-c", "slow.cc")
    try:
        wait_until(lambda: engine.running, "the compile at the engine")
        (process,) = engine.running.values()
    finally:
        call.send_signal(signal.SIGKILL)
        call.communicate()
    wait_until(lambda: engine.cancelled == {"operation-1"}, "the operation to be cancelled")
    wait_until(lambda: process.poll() is not None, "the compiler there to be gone")
    assert not (calls.path / "slow.o").exists()
    wait_until(lambda: calls.statistics().get("cancelled") == 1, "the call to be counted")


def test_times_that_matter_stay_here(calls: Calls, engine: SmallEngine) -> None:
    fill(calls, engine)
    calls.extra["SOURCE_DATE_EPOCH"] = "1600000000"
    calls.write("when.c", "const char *when = __TIMESTAMP__;\n")
    calls.write("one/h.h", "#pragma once\nstatic int h = 1;\n")
    calls.write("two/h.h", "#pragma once\nstatic int h = 1;\n")
    calls.write("twice.c", '#include "one/h.h"\n#include "two/h.h"\nint *p = &h;\n')
    calls.check_same("gcc", "-c", "when.c")
    for name in ("one/h.h", "two/h.h"):
        os.utime(calls.path / name, (1_600_000_000, 1_600_000_000))
    calls.check_same("gcc", "-c", "twice.c")
    assert len(engine.asked) == 1, "files of one time are taken for one, here and there"
    os.utime(calls.path / "two/h.h", (1_600_000_001, 1_600_000_001))
    calls.check_same("gcc", "-c", "twice.c", status=1)
    assert len(engine.asked) == 1
    counts = calls.statistics()
    assert counts["file_times"] == 2, counts


def test_what_no_worker_takes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_farm, "QUEUE_S", 0.3)
    monkeypatch.setattr(engine_farm, "WATCH_S", 0.05)
    (tmp_path / "a.c").write_text("int a;\n")
    (tmp_path / "lists").mkdir()
    request = Request(0o022, False, os.fsencode(tmp_path), (b"gcc", b"-c", b"a.c"), {"PATH": PATH})
    inquiry = inquire(request, Toolchains())
    with small_engine(tmp_path / "boxes", has_worker=False) as engine:
        farm = EngineFarm(ClientSettings(engine=EngineSettings(url=engine.url)))
        monkeypatch.chdir("/")
        attempt = EngineAttempt(
            farm,
            Scratch(str(tmp_path / "lists")),
            inquiry,
            find_inputs(inquiry, FileCache()),
            layout.shared_by(inquiry.toolchain),
            Cancel(),
            repeatable=True,
        )
        with pytest.raises(Local, match="no worker has begun anything of ours") as left:
            attempt.run()
        assert left.value.reason is Reason.NO_SERVER
        assert engine.cancelled == {"operation-1"}
        farm.close()


@pytest.mark.parametrize(
    ("compiler", "language", "as_offered"),
    [("gcc", b"c", "gcc"), ("g++", b"c++", "g++"), ("gcc", b"c++", "g++"), ("clang", b"c", "clang")],
)
def test_an_identity_is_as_a_worker_offers_it(compiler: str, language: bytes, as_offered: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    environ = {"PATH": PATH}
    program = find_compiler(compiler.encode(), b"/", os.fsencode(PATH))
    found = identity(Toolchains().find(program, language, (), environ), environ)
    assert found and found == Identities(environ).find(as_offered)
