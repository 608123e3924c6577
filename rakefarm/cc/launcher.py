"""The compiled launcher: made on first use, by a compiler that the user has."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence

from rakefarm import process
from rakefarm.cc import locations
from rakefarm.cc.reasons import Local
from rakefarm.cc.toolchain import find_compiler, quote

NAMES = ("cc", "gcc", "c++", "g++", "clang", "clang++")
COMPILE_S = 60.0


class LauncherError(OSError):
    """The launcher can't be compiled; the text says why."""


def build_launcher(environ: Mapping[str, str]) -> str:
    """The launcher's path; it is compiled when it isn't there. Raises LauncherError or another OSError."""
    path = locations.launcher_path(environ)
    if os.access(path, os.X_OK):
        return path
    search = os.fsencode(environ.get("PATH", os.defpath))
    compiler = None
    for name in (b"cc", b"gcc", b"clang"):
        try:
            compiler = find_compiler(name, b"/", search)
            break
        except Local:
            continue
    if compiler is None:
        raise LauncherError("no C compiler is on the PATH to build the launcher with")
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as directory:
        made = os.path.join(directory, "rakefarm-cc")
        words = [
            compiler, b"-O2", b"-s", b"-o", os.fsencode(made), _define("PYTHON", sys.executable),
            # In C a string whose content is a Python string.
            _define("ROOT", json.dumps(root)), os.fsencode(os.path.join(here, "launcher.c")),
        ]  # fmt: skip
        # Linking the C library anew at each start takes two thirds of it; not every system has one to link statically.
        if _compile([*words, b"-static"], environ):
            problem = _compile(words, environ)
            if problem:
                raise LauncherError(f"the launcher can't be compiled: {problem}")
        os.replace(made, path)
    return path


def _compile(words: Sequence[bytes], environ: Mapping[str, str]) -> str:
    """Run the compiler; what is wrong when it fails, or nothing."""
    variables = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    completed = process.run(
        b" ".join([quote(word) for word in words]),
        {**variables, b"RAKEFARM_CC": b"off"},
        directory=b"/",
        timeout_s=COMPILE_S,
    )
    said = b"".join(completed.stderr.pieces()).decode(errors="replace").strip()
    completed.close()
    return "" if completed.ending == process.Exited(0) else said or str(completed.ending)


def _define(name: str, text: str) -> bytes:
    return os.fsencode(f"-D{name}={json.dumps(text)}")


def install_links(directory: str, environ: Mapping[str, str]) -> list[str]:
    """Links to the launcher by the names of compilers, for the head of a PATH; those that stand there already are
    replaced when they are links. Answers their paths. Raises OSError."""
    target = build_launcher(environ)
    os.makedirs(directory, exist_ok=True)
    made = []
    for name in NAMES:
        path = os.path.join(directory, name)
        if os.path.islink(path):
            os.unlink(path)
        os.symlink(target, path)
        made.append(path)
    return made
