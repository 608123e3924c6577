"""Debian's Bazel, a client that nobody here wrote, on our workers by way of BuildGrid."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_vocabulary import MakeEngine
from parts import INSTALL_S
from server_vocabulary import StartServer

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("engine"), pytest.mark.timeout(600)]
PACKAGES = ["bazel-bootstrap", "bazel-rules-cc", "bazel-rules-java", "bazel-rules-proto"]
RULES = Path("/usr/share/bazel/rules")
GENRULES = 22
BAZEL_S = 240


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Debian's packages; skips where they can't be had."""
    if not shutil.which("bazel") or not all((RULES / name).is_dir() for name in ("cc", "java", "proto")):
        if os.geteuid() == 0 and shutil.which("apt-get"):
            for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
                env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
                subprocess.run(["apt-get", "-qq", *words], env=env, capture_output=True, timeout=INSTALL_S)
    if not shutil.which("bazel") or not (RULES / "proto").is_dir():
        pytest.skip(f"Bazel is not here, and can't be installed: apt-get install {' '.join(PACKAGES)}")


@pytest.fixture
def rules_cc(tmp_path: Path) -> Path:
    """Debian's are newer than its Bazel: two files of them ask for a function that this Bazel has not."""
    place = tmp_path / "rules_cc"
    shutil.copytree(RULES / "cc", place)
    for name in ("cc_flags_supplier.bzl", "compiler_flag.bzl"):
        path = place / "cc" / "private" / "rules_impl" / name
        text = path.read_text().replace(', "use_cpp_toolchain")', ")")
        path.write_text(text.replace("use_cpp_toolchain()", '["@bazel_tools//tools/cpp:toolchain_type"]'))
    return place


class Bazel:
    """One workspace, and its Bazel, which stays between calls."""

    def __init__(self, place: Path, engine: str, rules_cc: Path) -> None:
        self.place = place / "workspace"
        self.place.mkdir()
        self._startup = ["bazel", f"--output_user_root={place / 'bazel'}"]
        self._options = [
            "--spawn_strategy=remote", "--genrule_strategy=remote", f"--remote_executor={engine}",
            "--remote_default_exec_properties=OSFamily=linux", f"--override_repository=rules_cc={rules_cc}",
            f"--override_repository=rules_java={RULES / 'java'}", f"--override_repository=rules_proto={RULES / 'proto'}",
        ]  # fmt: skip

    def run(self, *words: str) -> str:
        done = subprocess.run([*self._startup, *words], cwd=self.place, capture_output=True, text=True, timeout=BAZEL_S)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    def build(self) -> str:
        """What it says of how its processes ran."""
        said = self.run("build", *self._options, "//:all")
        (line,) = [line for line in said.splitlines() if " processes: " in line or " process: " in line]
        return line


@pytest.fixture
def bazel(make_engine: MakeEngine, start_server: StartServer, rules_cc: Path, tmp_path: Path) -> Iterator[Bazel]:
    engine = make_engine()
    for _ in range(2):
        start_server("--slots", "2", "--join", engine.url)
    made = Bazel(tmp_path, engine.url, rules_cc)
    yield made
    made.run("shutdown")


def test_genrules_and_a_program_are_built_on_our_workers_and_then_cached(bazel: Bazel) -> None:
    rules = [f'genrule(name = "g{n}", outs = ["g{n}.txt"], cmd = "echo {n} > $@")\n' for n in range(GENRULES)]
    (bazel.place / "WORKSPACE").write_text('workspace(name = "rakefarm")\n')
    (bazel.place / "BUILD").write_text("".join(rules) + 'cc_binary(name = "hello", srcs = ["hello.c"])\n')
    (bazel.place / "hello.c").write_text('#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n')
    assert f" {GENRULES + 2} remote" in bazel.build()
    said = subprocess.run([bazel.place / "bazel-bin" / "hello"], capture_output=True, check=True).stdout
    assert said == b"hello\n"
    assert (bazel.place / "bazel-bin" / "g7.txt").read_text() == "7\n"
    bazel.run("clean")
    assert f" {GENRULES + 2} remote cache hit" in bazel.build()
