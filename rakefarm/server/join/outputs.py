"""What an action made of what it was to make: files, directories as trees, and links, as links; nothing is followed.

A command may have put anything there, and may even have taken its own directory away. What it did not make is left
out: whoever wanted it will see. What must not leave (a file that has a name outside as well, or is another user's, or a
name that the interface can't write) fails the action.
"""

import os
import stat
from collections.abc import Callable, Sequence

from msgspec import Struct

from rakefarm.beneath import open_beneath
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.blobs import Source
from rakefarm.engine.content import Content, content_of
from rakefarm.engine.tree import File, Link, NotText, as_text, make_tree
from rakefarm.snapshot import Made, UnfitOutput, check_whose, count_names, inspect_file, open_made
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.paths import check_path, show

Admit = Callable[[int, int], None]


class Collected(Struct):
    """What goes to the engine: the result's entries, and where each content comes from."""

    result: api.ActionResult
    sources: dict[Content, Source]
    made: list[Made]


class Collecting:
    """One action's outputs. `admit` is told of so many files and bytes, and raises what it likes; `owner` is whose the
    files must be."""

    def __init__(self, box: bytes, beat: Callable[[], None], admit: Admit, owner: int) -> None:
        self._box = box
        self._beat = beat
        self._admit = admit
        self._owner = owner
        self._total = 0
        self._found = Collected(api.ActionResult(), {}, [])

    def collect(self, directory: bytes, wanted: Sequence[bytes]) -> Collected:
        """Those of the `wanted` paths, relative to the working `directory`, that are there. Raises UnfitOutput."""
        try:
            top = os.open(self._box, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return self._found
        try:
            for path in wanted:
                place = b"/".join([part for part in (directory, path) if part])
                self._take(top, place, as_text(path))
        except NotText as error:
            raise UnfitOutput(str(error)) from error
        except OSError as error:
            raise UnfitOutput(f"what the command made can't be read: {error.strerror}") from error
        finally:
            os.close(top)
        return self._found

    def _take(self, top: int, place: bytes, name: str) -> None:
        if not place:
            self._add_directory(top, b"", name)
            return
        try:
            handle = open_beneath(top, place, os.O_PATH)
        except OSError:
            return  # not there, or only by way of a link
        try:
            status = os.fstat(handle)
            if stat.S_ISDIR(status.st_mode):
                self._add_directory(top, place, name)
            elif stat.S_ISREG(status.st_mode):
                file = self._file(top, place, status)
                self._found.result.output_files.add(
                    path=name, digest=file.content.digest, is_executable=file.executable
                )
            elif stat.S_ISLNK(status.st_mode):
                target = as_text(os.readlink(b"", dir_fd=handle))
                self._found.result.output_symlinks.add(path=name, target=target)
        finally:
            os.close(handle)

    def _file(self, top: int, place: bytes, status: os.stat_result) -> File:
        named = status.st_nlink if status.st_nlink == 1 else count_names(top, status)
        check_whose(place, status, named, self._owner)
        self._total += status.st_size
        self._admit(len(self._found.made) + 1, self._total)
        made = inspect_file(top, self._box, place, self._beat)
        if made is None:
            raise UnfitOutput(f"{show(place)} was replaced while it was read")
        self._found.made.append(made)
        content = Content(made.sha256, made.size)
        self._found.sources[content] = lambda: open_made(made)
        return File(place, content, bool(made.mode & stat.S_IXUSR))

    def _add_directory(self, top: int, place: bytes, name: str) -> None:
        files, links, directories = self._look(top, place)
        root, messages = make_tree(files, directories, links)
        tree = api.Tree(root=api.Directory.FromString(messages.pop(root)))
        tree.children.extend([api.Directory.FromString(data) for data in messages.values()])
        data = tree.SerializeToString(deterministic=True)
        content = content_of(data)
        self._found.sources[content] = data
        self._found.result.output_directories.add(path=name, tree_digest=content.digest)

    def _look(self, top: int, place: bytes) -> tuple[list[File], list[Link], list[bytes]]:
        """What is in a directory, by paths relative to it."""
        files: list[File] = []
        links: list[Link] = []
        directories: list[bytes] = []
        waiting = [b""]
        while waiting:
            inner = waiting.pop()
            whole = b"/".join([part for part in (place, inner) if part])
            here = open_beneath(top, whole, os.O_RDONLY | os.O_DIRECTORY) if whole else os.dup(top)
            try:
                for entry in list(os.scandir(here)):
                    path = (inner + b"/" if inner else b"") + os.fsencode(entry.name)
                    _check(path)
                    within = place + b"/" + path if place else path
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(path)
                        waiting.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        file = self._file(top, within, entry.stat(follow_symlinks=False))
                        files.append(File(path, file.content, file.executable))
                    elif entry.is_symlink():
                        links.append(Link(path, os.fsencode(os.readlink(entry.name, dir_fd=here))))
                    self._admit(len(files) + len(links) + len(directories), self._total)
            finally:
                os.close(here)
        return files, links, directories


def _check(path: bytes) -> None:
    try:
        check_path(path)
    except UnsafePath as error:
        raise UnfitOutput(f"the command made a file that can't be returned: {error}") from error
