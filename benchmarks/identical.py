"""Objects and program of a real project, compiled on the farm and here: are they the same, byte for byte?

    python3 benchmarks/identical.py

The project is Lua, 30 and more C files, from the source distribution of the package `lupa` on the Python Package
Index, fetched with pip; nothing of it is kept.
"""

import filecmp
import glob
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

from farm import client, server

FLAGS = "-O2 -std=gnu99 -DLUA_USE_LINUX"


def fetch(directory: str) -> str:
    """Download and unpack; answers the directory of Lua's sources."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            "lupa",
            "-d",
            directory,
            "lupa",
        ],
        # Its setup, which pip asks what it needs, would compile another Lua meanwhile.
        env={**os.environ, "LUPA_NO_LUAJIT": "true"},
        check=True,
    )
    (archive,) = glob.glob(os.path.join(directory, "lupa-*.tar.gz"))
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="data")
    found = glob.glob(os.path.join(directory, "lupa-*", "third-party", "lua54", "**", "lapi.c"), recursive=True)
    return os.path.dirname(found[0])


def write_rakefile(directory: str) -> list[str]:
    """A Rakefile that compiles every file of the interpreter and links it; answers the C files' names."""
    sources = sorted(
        name for name in os.listdir(directory) if name.endswith(".c") and name not in ("luac.c", "onelua.c", "ltests.c")
    )
    headers = " ".join(sorted(name for name in os.listdir(directory) if name.endswith(".h")))
    with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
        file.write("compile:\n")
        for source in sources:
            file.write(f"\tremote-cc {FLAGS} -c {source}\n\t\trequires {source} {headers}\n")
        objects = " ".join(source[:-2] + ".o" for source in sources)
        file.write(f"link:\n\tremote-cc -o lua {objects} -lm -ldl -Wl,-E\n\t\trequires {objects}\n")
        file.write("run:\n\t./lua -e 'print(_VERSION)'\n")
    return sources


def build_here(directory: str, sources: list[str]) -> None:
    """The same commands, without the farm."""
    for source in sources:
        subprocess.run(f"cc {FLAGS} -c {source}", shell=True, cwd=directory, check=True)
    objects = " ".join(source[:-2] + ".o" for source in sources)
    subprocess.run(f"cc -o lua {objects} -lm -ldl -Wl,-E", shell=True, cwd=directory, check=True)


def main() -> None:
    """Build twice, compare; exit status 1 when anything differs."""
    with tempfile.TemporaryDirectory() as directory:
        remote = fetch(directory)
        here = os.path.join(directory, "here")
        shutil.copytree(remote, here)
        sources = write_rakefile(remote)
        with server() as first, server() as second:
            client(remote, "--hosts", f"{first.address},{second.address}")
        build_here(here, sources)
        names = [source[:-2] + ".o" for source in sources] + ["lua"]
        same, different, missing = filecmp.cmpfiles(remote, here, names, shallow=False)
        print(f"{len(sources)} C files: {len(same)} of {len(names)} files identical")
        if different or missing:
            sys.exit(f"different: {different}, missing: {missing}")


if __name__ == "__main__":
    main()
