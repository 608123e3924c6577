"""What is compiled: compile phases of real projects, one make target a translation unit, and empty files.

A project comes as a source package, is configured and generated beforehand, and its compile_commands.json becomes a
makefile whose recipes are `$(LAUNCHER) COMPILER ARGS…`: so every way of compiling gets the same commands, and none
has links, archives or tests in its time.
"""

import contextlib
import filecmp
import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass

from identical import FLAGS

COMPILES = "compiles.mk"
SOURCES = "deb-src http://deb.debian.org/debian {release} main\n"


class NotFetched(Exception):
    """A source package can't be had here; the text says why."""


@dataclass(frozen=True)
class Work:
    """A list of compiles: `directory` is where all of them run, `objects` are what they make, relative to it."""

    name: str
    directory: str
    objects: tuple[str, ...]

    def clean(self) -> None:
        """Remove every object."""
        for name in self.objects:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.directory, name))

    def keep(self, place: str) -> None:
        """Copy every object to the directory `place`."""
        shutil.rmtree(place, ignore_errors=True)
        for name in self.objects:
            target = os.path.join(place, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(os.path.join(self.directory, name), target)

    def differing(self, place: str) -> int:
        """How many objects are missing, or other than those in `place`."""
        _, different, missing = filecmp.cmpfiles(place, self.directory, self.objects, shallow=False)
        return len(different) + len(missing)


def _write(name: str, directory: str, commands: list[tuple[str, str, str]]) -> Work:
    """A makefile of (object, source, command)."""
    objects = tuple(target for target, _, _ in commands)
    for target in objects:
        os.makedirs(os.path.join(directory, os.path.dirname(target)), exist_ok=True)
    with open(os.path.join(directory, COMPILES), "w", encoding="utf-8") as file:
        file.write(f"all: {' '.join(objects)}\n")
        for target, source, command in commands:
            file.write(f"{target}: {source}\n\t$(LAUNCHER) {command.replace('$', '$$')}\n")
    return Work(name, directory, objects)


def from_database(name: str, build: str) -> Work:
    """The compiles of `build`/compile_commands.json, all of which must run in `build`."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = json.load(file)
    commands = []
    for entry in entries:
        command = entry.get("command") or shlex.join(entry["arguments"])
        words = shlex.split(command)
        assert os.path.samefile(entry["directory"], build), f"{name} is not built in one directory"
        commands.append((words[words.index("-o") + 1], entry["file"], command))
    return _write(name, build, commands)


def _apt_source(directory: str, name: str, *options: str) -> str:
    """Fetch a Debian source package; answers the directory that it is in. Lists of sources of our own are used, so
    nothing of the system changes. Raises NotFetched."""
    lists, place = os.path.join(directory, "apt"), os.path.join(directory, f"source-{name}")
    os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
    os.makedirs(place)
    with open("/etc/os-release", encoding="utf-8") as file:
        release = dict(line.rstrip().split("=", 1) for line in file if "=" in line).get("VERSION_CODENAME", "stable")
    sources = os.path.join(directory, "sources.list")
    with open(sources, "w", encoding="ascii") as file:
        file.write(SOURCES.format(release=release))
    own = [f"-oDir::Etc::sourcelist={sources}", "-oDir::Etc::sourceparts=/dev/null", f"-oDir::State::lists={lists}"]
    try:
        for words in (["update"], ["source", *options, name]):
            subprocess.run(["apt-get", "-q", *own, *words], cwd=place, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotFetched(f"the Debian source package {name}: {error}") from error
    return place


def debian_source(directory: str, name: str) -> str:
    """Fetch and unpack a Debian source package; answers its directory. Raises NotFetched."""
    place = _apt_source(directory, name)
    (unpacked,) = [entry.path for entry in os.scandir(place) if entry.is_dir()]
    return unpacked


def debian_archive(directory: str, name: str) -> str:
    """Fetch a Debian source package; answers the path of its archive as the authors made it. Raises NotFetched."""
    place = _apt_source(directory, name, "--download-only", "--tar-only")
    (archive,) = [entry.path for entry in os.scandir(place) if ".orig.tar." in entry.name and entry.name[-4:] != ".asc"]
    return archive


def lua(directory: str) -> Work:
    """Lua 5.4, of the Debian source package. Raises NotFetched."""
    place = os.path.join(debian_source(directory, "lua5.4"), "src")
    with open(os.path.join(place, "lua5.4-deb-multiarch.h"), "w", encoding="ascii") as file:
        file.write('#define DEB_HOST_MULTIARCH "x86_64-linux-gnu"\n')  # Debian's build generates it
    names = sorted(name for name in os.listdir(place) if name.endswith(".c") and name != "luac.c")
    return _write("Lua", place, [(f"{name[:-2]}.o", name, f"gcc {FLAGS} -c {name} -o {name[:-2]}.o") for name in names])


def leveldb(directory: str) -> Work:
    """LevelDB, C++ under CMake, of the Debian source package. Raises NotFetched."""
    source = debian_source(directory, "leveldb")
    build = os.path.join(directory, "leveldb")
    configure = [
        "cmake", "-S", source, "-B", build, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-DLEVELDB_BUILD_TESTS=OFF",
        "-DLEVELDB_BUILD_BENCHMARKS=OFF", "-DCMAKE_BUILD_TYPE=Release",
    ]  # fmt: skip
    subprocess.run(configure, check=True, capture_output=True)
    return from_database("leveldb", build)


def empty(directory: str, count: int) -> Work:
    """Files with one line each."""
    place = os.path.join(directory, f"empty-{count}")
    os.mkdir(place)
    for number in range(count):
        with open(os.path.join(place, f"f{number}.c"), "w", encoding="ascii") as file:
            file.write(f"int f{number};\n")
    numbers = range(count)
    return _write(f"{count} empty", place, [(f"f{n}.o", f"f{n}.c", f"gcc -O2 -c f{n}.c -o f{n}.o") for n in numbers])


def many_headers(directory: str, sources: int, headers: int) -> Work:
    """`sources` files that include `headers` different ones each."""
    place = os.path.join(directory, "many")
    os.mkdir(place)
    commands = []
    for number in range(sources):
        with open(os.path.join(place, f"s{number}.c"), "w", encoding="ascii") as file:
            for header in range(headers):
                name = f"h{number}_{header}.h"
                file.write(f'#include "{name}"\n')
                with open(os.path.join(place, name), "w", encoding="ascii") as included:
                    included.write(f"/* {name} */\n#include <stddef.h>\nextern size_t v{number}_{header};\n")
        commands.append((f"s{number}.o", f"s{number}.c", f"gcc -c s{number}.c -o s{number}.o"))
    return _write(f"{sources * (headers + 1)} files", place, commands)
