"""Real projects, built on a farm by `rakefarm run`, pass their own test suites; `configure` finds what it finds here.

    python3 benchmarks/real_projects.py [PROJECT …]

The projects are Debian source packages, fetched with apt-get and removed in the end: libtommath (plain make, 150 C
files), gzip (autotools), pugixml (C++, CMake and ninja). Two servers on loopback, two slots each. Each is built twice
in the same directory, here and on the farm, and all objects must be the same, byte for byte.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from farm import ENVIRONMENT
from peers.ways import Way, rakefarm, rakeserver
from peers.works import NotFetched, debian_source

JOBS = "-j4"
GENERATED = "ACLOCAL=: AUTOMAKE=: AUTOCONF=: AUTOHEADER=: MAKEINFO=:"
"""Debian's patches make generated files look out of date; they are there, as the authors have shipped them."""


@dataclass(frozen=True)
class Project:
    """A source package, and shell commands in its directory. `found` names files that configuring writes its findings
    to."""

    name: str
    configure: str
    build: str
    test: str
    clean: str
    found: tuple[str, ...] = ()


PROJECTS = {
    each.name: each
    for each in (
        Project("libtommath", "true", f"make {JOBS} test", "./test", "make clean"),
        Project(
            "gzip", "FORCE_UNSAFE_CONFIGURE=1 ./configure --quiet", f"make {JOBS} {GENERATED}",
            f"make {JOBS} {GENERATED} check", f"make {GENERATED} distclean", ("lib/config.h",),
        ),
        Project(
            "pugixml", "cmake -S . -B build -G Ninja -DBUILD_TESTING=ON -DPUGIXML_BUILD_TESTS=ON",
            f"ninja -C build {JOBS}", "ctest --test-dir build --output-on-failure", "rm -rf build",
            ("build/CMakeCache.txt",),
        ),
    )
}  # fmt: skip


class Failed(Exception):
    """A step of a build has failed; the text ends with what it said."""


def step(command: str, directory: str, environment: Mapping[str, str], around: Sequence[str] = ()) -> float:
    """Run a shell command; answers seconds. Raises Failed."""
    began = time.perf_counter()
    words = [*around, "sh", "-c", command]
    done = subprocess.run(words, cwd=directory, env={**ENVIRONMENT, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{command}: exit {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return time.perf_counter() - began


def objects(directory: str) -> dict[str, str]:
    """Digests of all objects below a directory, by path."""
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            if name.endswith(".o"):
                path = os.path.join(place, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, directory)] = hashlib.sha256(file.read()).hexdigest()
    return found


def findings(project: Project, directory: str) -> dict[str, list[str]]:
    """The lines of each file that configuring has written its findings to; the compiler's own place aside, which is a
    link of ours when a build runs under `rakefarm run`."""
    lines = {}
    for name in project.found:
        with contextlib.suppress(FileNotFoundError), open(os.path.join(directory, name), encoding="utf-8") as file:
            lines[name] = [line for line in file if not line.startswith(("CMAKE_CXX_COMPILER:", "CMAKE_C_COMPILER:"))]
    return lines


def build(
    project: Project, directory: str, environment: Mapping[str, str], around: Sequence[str]
) -> dict[str, list[str]]:
    """Configure, build and test; answers what configuring has found."""
    step(project.configure, directory, environment, around)
    found = findings(project, directory)
    build_s = step(project.build, directory, environment, around)
    test_s = step(project.test, directory, environment, around)
    where = "on the farm" if around else "here"
    print(f"  {where}: built in {build_s:.1f} s, its tests pass ({test_s:.1f} s)", flush=True)
    return found


def check(project: Project, directory: str, way: Way) -> bool:
    """Here, then on the farm; whether everything is the same. Raises Failed or NotFetched."""
    source = debian_source(directory, project.name)
    print(f"{os.path.basename(source)}, load {os.getloadavg()[0]:.1f}", flush=True)
    found_here = build(project, source, {}, ())
    here = objects(source)
    step(project.clean, source, {})
    found_there = build(project, source, way.environment, (sys.executable, "-m", "rakefarm", "run"))
    there = objects(source)
    different = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    print(f"  {len(here)} objects, {len(different)} differ {' '.join(different[:5])}", flush=True)
    if not project.found:
        return not different
    alike = bool(found_here) and found_here == found_there
    print(f"  configured {'alike' if alike else 'NOT alike'}: {', '.join(found_here)}", flush=True)
    return alike and not different


def main() -> int:
    """Exit status 1 when a project does not build, fails its tests, or is another one."""
    status = 0
    for name in sys.argv[1:] or PROJECTS:
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-"))
            hosts = [stack.enter_context(rakeserver(directory, 2)) for _ in range(2)]
            way = stack.enter_context(rakefarm(directory, hosts))
            try:
                status |= not check(PROJECTS[name], directory, way)
            except (Failed, NotFetched) as error:
                print(f"  FAILED: {error}", flush=True)
                status = 1
            told = [sys.executable, "-m", "rakefarm.cc", "--statistics"]
            text = subprocess.run(told, env={**ENVIRONMENT, **way.environment}, capture_output=True, text=True).stdout
            for line in text.splitlines()[1:]:
                print(f"    {line.strip()}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
