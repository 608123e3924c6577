"""GCC's own torture tests, compiled through `rakefarm cc` and without: is everything that comes of a call the same?

    python3 benchmarks/torture.py [FILES]

The sources are those of gcc.c-torture (compile and execute) in the Debian source package of gcc 12, some 90 MB, fetched
with apt-get and removed in the end. Of each of FILES (default: 400, spread over all of them) exit status, both outputs
and the object must be the same as the compiler's, byte for byte, with -O2 and with -O0 -g.
"""

import collections
import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from farm import ENVIRONMENT
from peers.ways import rakefarm, rakeserver
from peers.works import debian_archive

PACKAGE, SUITE = "gcc-12", "/gcc/testsuite/gcc.c-torture/"
OPTIONS = (("-O2",), ("-O0", "-g"))
AT_ONCE = 4

Outcome = tuple[int, bytes, bytes, bytes | None]


def unpack(archive: str, directory: str) -> list[str]:
    """The suite's C files, below `directory`; answers their paths relative to it."""
    with tarfile.open(archive) as outer:
        inner = next(each for each in outer if "/gcc-" in each.name and ".tar" in each.name)
        content = outer.extractfile(inner)
        assert content
        with tarfile.open(fileobj=content, mode="r|*") as sources:
            for member in sources:
                if SUITE in member.name and member.isfile():
                    member.name = member.name.split(SUITE)[1]
                    sources.extract(member, directory, filter="data")
    found = (os.path.join(place, name) for place, _, names in os.walk(directory) for name in names)
    return sorted(os.path.relpath(path, directory) for path in found if path.endswith(".c"))


def call(
    compiler: list[str], options: tuple[str, ...], name: str, directory: str, variables: Mapping[str, str]
) -> Outcome:
    """Compile one file, as a build would; answers all that came of it."""
    target = name.replace("/", "-")[:-2] + "".join(options) + ".o"
    path = os.path.join(directory, target)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    words = [*compiler, *options, "-c", name, "-o", target]
    done = subprocess.run(words, cwd=directory, env={**ENVIRONMENT, **variables, "LC_ALL": "C"}, capture_output=True)
    made = None
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        made = file.read()
    return done.returncode, done.stdout, done.stderr, made


@contextlib.contextmanager
def farm(directory: str) -> Iterator[tuple[list[str], Mapping[str, str]]]:
    """A farm of one server; answers the launcher and its variables, and tells in the end where calls ran."""
    with rakeserver(directory, 4) as host, rakefarm(directory, [host]) as way:
        try:
            yield [way.launcher], way.environment
        finally:
            words = [sys.executable, "-m", "rakefarm.cc", "--statistics"]
            told = subprocess.run(words, env={**ENVIRONMENT, **way.environment}, capture_output=True, text=True)
            print("\n".join(f"  {line.strip()}" for line in told.stdout.splitlines()[1:]), flush=True)


def main() -> int:
    """Exit status 1 when anything differs."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    with tempfile.TemporaryDirectory(prefix="rf-") as directory:
        suite = os.path.join(directory, "suite")
        names = unpack(debian_archive(directory, PACKAGE), suite)
        names = names[:: max(1, len(names) // count)][:count]
        print(f"{len(names)} files of gcc.c-torture, load {os.getloadavg()[0]:.1f}", flush=True)
        failed: list[str] = []
        statuses: collections.Counter[int] = collections.Counter()
        with farm(directory) as (launcher, variables), ThreadPoolExecutor(AT_ONCE) as pool:

            def same(name: str) -> None:
                for options in OPTIONS:
                    here = call(["gcc"], options, name, suite, {})
                    if call([*launcher, "gcc"], options, name, suite, variables) != here:
                        failed.append(f"{name} {' '.join(options)}")
                    statuses[here[0]] += 1

            list(pool.map(same, names))
        calls = sum(statuses.values())
        print(f"{calls} calls, {calls - len(failed)} alike ({1 - len(failed) / calls:.2%}); gcc's exit statuses:"
              f" {dict(statuses)}", flush=True)  # fmt: skip
        for line in failed:
            print(f"  differs: {line}", flush=True)
        return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
