"""distcc's own test suite, as far as it is about calling a compiler, with `rakefarm cc` in distcc's place.

    python3 benchmarks/distcc_suite.py [TEST …]

The suite is that of the Debian source package, fetched with apt-get and removed in the end. Its cases look for `distcc`
on the PATH, which is our launcher here, and start a `distccd`, which is a program that does nothing: a server of ours
is there instead. Each case runs alone, and says OK, FAIL or NOTRUN. What is about distcc's own programs, logs, statuses
and host lists is left out, as the output says.
"""

import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence

from farm import ENVIRONMENT
from peers.ways import rakefarm, rakeserver
from peers.works import debian_archive

CALLS = (
    "CompileHello", "CommaInFilename", "ComputedInclude", "BackslashInMacro", "BackslashInFilename", "CPlusPlus",
    "ObjectiveC", "ObjectiveCPlusPlus", "SystemIncludeDirectories", "CPlusPlus_SystemIncludeDirectories", "Gdb",
    "GdbOpt1", "GdbOpt2", "GdbOpt3", "DashMD_DashMF_DashMT", "CompressedCompile", "DashONoSpace",
    "WriteDevNull", "CppError", "BadInclude", "PreprocessPlainText", "SBeatsC", "DashD", "DashWpMD", "BinFalse",
    "BinTrue", "MultipleCompile", "CompilerOptionsPassed", "ImplicitCompiler", "ImpliedOutput", "SyntaxError",
    "RemoteAssemble", "ModeBits", "EmptySource", "HostFile", "AbsSourceFilename", "Concurrent", "HundredFold",
    "BigAssFile",
)  # fmt: skip
LEFT_OUT = {
    "its own programs and functions": (
        "Lsdistcc", "ScanArgs", "ParseMask", "ImplicitCompilerScan", "StripArgs", "IsSource", "ExtractExtension",
        "Getline", "DotD", "Compile_c", "VersionOption", "HelpOption", "BogusOption",
    ),
    "its daemon": ("StartStopDaemon", "NoDetachDaemon", "DaemonBadPort", "AccessDenied"),
    "its host lists": ("InvalidHostSpec", "ParseHostSpec", "NoHosts", "NoServer"),
    "its log or its exit statuses": ("BadLogFile", "MissingCompiler"),
    "not run on Linux": ("PreprocessAsm",),
}  # fmt: skip
DAEMON = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && file=$2; shift; done
sleep 300 </dev/null >/dev/null 2>&1 & echo $! >"$file"
"""
LIMIT_S = 300


def unpack(archive: str, directory: str) -> str:
    """The suite's directory, below `directory`."""
    with tarfile.open(archive) as sources:
        sources.extractall(directory, filter="data")
    (top,) = os.listdir(directory)
    return os.path.join(directory, top, "test")


def install(directory: str, name: str, text: str) -> None:
    """A script of this name."""
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)


def run(suite: str, test: str, directory: str, variables: Mapping[str, str]) -> tuple[str, str]:
    """One case: OK, FAIL or NOTRUN, and what it said."""
    words = [sys.executable, os.path.join(suite, "testdistcc.py"), f"{test}_Case"]
    try:
        done = subprocess.run(
            words, cwd=directory, env=variables, stdin=subprocess.DEVNULL, stdout=-1, stderr=-2, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return "FAIL", f"it took longer than {LIMIT_S} s"
    said = done.stdout.decode(errors="replace")
    verdict = next((word for word in ("NOTRUN", "FAIL", "OK") if f" {word}" in said), "FAIL")
    return verdict, said


def main(tests: Sequence[str]) -> int:
    """Exit status 1 when a case fails."""
    counts = {"OK": 0, "FAIL": 0, "NOTRUN": 0}
    with tempfile.TemporaryDirectory(prefix="rf-") as directory:
        suite = unpack(debian_archive(directory, "distcc"), os.path.join(directory, "distcc"))
        for name in ("shims", "work"):
            os.mkdir(os.path.join(directory, name))
        shims, work = os.path.join(directory, "shims"), os.path.join(directory, "work")
        with rakeserver(directory, 2) as host, rakefarm(directory, [host]) as way:
            install(shims, "distcc", f'#!/bin/sh\nexec {shlex.quote(way.launcher)} "$@"\n')
            install(shims, "distccd", DAEMON)
            variables = {**ENVIRONMENT, **way.environment, "PATH": f"{shims}:{os.environ['PATH']}"}
            variables.pop("PYTHONPATH")
            # The helper is to have a directory for its files that is there for longer than one case.
            subprocess.run([way.launcher, "gcc", "--version"], env=variables, check=True, capture_output=True)
            for test in tests or CALLS:
                verdict, said = run(suite, test, work, variables)
                counts[verdict] += 1
                print(f"{test:36} {verdict}", flush=True)
                if verdict != "OK":
                    print("\n".join(f"    {line}" for line in said.strip().splitlines()[-12:]), flush=True)
            words = [sys.executable, "-m", "rakefarm.cc", "--statistics"]
            told = subprocess.run(words, env={**ENVIRONMENT, **way.environment}, capture_output=True, text=True)
            print(told.stdout, end="")
    print(f"{counts['OK']} passed, {counts['FAIL']} failed, {counts['NOTRUN']} can't be run here")
    for why, names in LEFT_OUT.items() if not tests else ():
        print(f"left out, {why}: {', '.join(names)}")
    return int(bool(counts["FAIL"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
