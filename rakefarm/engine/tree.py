"""Directories as the interface has them: messages that name each other by digest, made of a list of files, or walked.

What is walked came from outside: names, counts and depths are checked before anything is made of them. Since a message
may be named many times, a few small ones can stand for more directories than there are atoms, so what is counted is
each time that one is come to.
"""

from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import DecodeError
from msgspec import Struct

from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.content import Content, content_of, read_digest
from rakefarm.engine.errors import EngineUnbelievable
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.paths import DEPTH, check_path, show

TARGET_BYTES = 4096  # PATH_MAX
MESSAGE_BYTES = 8 << 20
"""The largest Directory or Tree; each entry of one takes some hundred bytes."""


class File(Struct, frozen=True):
    """A file of a tree."""

    path: bytes
    content: Content
    executable: bool


class Link(Struct, frozen=True):
    """A symbolic link of a tree; where it leads is nobody's business until it is followed."""

    path: bytes
    target: bytes


class Contents(Struct):
    """All that a tree consists of, directories before what is in them."""

    files: list[File]
    links: list[Link]
    directories: list[bytes]

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return sum([file.content.size for file in self.files])


class NotText(ValueError):
    """A path that is not UTF-8: the interface has no way to write it."""


def as_text(path: bytes) -> str:
    """A path as the interface has it. Raises NotText."""
    try:
        return path.decode()
    except UnicodeDecodeError as error:
        raise NotText(f"the path {show(path)} is not UTF-8, and an engine takes no other") from error


def make_tree(
    files: Iterable[File], directories: Iterable[bytes] = (), links: Iterable[Link] = ()
) -> tuple[Content, dict[Content, bytes]]:
    """The root's digest, and all the messages by theirs. Paths are checked ones. Raises NotText."""
    top: _Node = _Node()
    for path in directories:
        top.at(path.split(b"/"))
    for file in files:
        *way, name = file.path.split(b"/")
        top.at(way).files[as_text(name)] = file
    for link in links:
        *way, name = link.path.split(b"/")
        top.at(way).links[as_text(name)] = link
    messages: dict[Content, bytes] = {}
    return top.write(messages), messages


class _Node:
    """A directory that is being put together."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.links: dict[str, Link] = {}
        self.directories: dict[str, _Node] = {}

    def at(self, way: Iterable[bytes]) -> "_Node":
        here = self
        for part in way:
            here = here.directories.setdefault(as_text(part), _Node())
        return here

    def message(self, messages: dict[Content, bytes]) -> api.Directory:
        """In the order that the interface wants, so that the same tree always has the same digest."""
        directory = api.Directory()
        for name, file in sorted(self.files.items()):
            directory.files.add(name=name, digest=file.content.digest, is_executable=file.executable)
        for name, node in sorted(self.directories.items()):
            directory.directories.add(name=name, digest=node.write(messages).digest)
        for name, link in sorted(self.links.items()):
            directory.symlinks.add(name=name, target=as_text(link.target))
        return directory

    def write(self, messages: dict[Content, bytes]) -> Content:
        data = self.message(messages).SerializeToString(deterministic=True)
        content = content_of(data)
        messages[content] = data
        return content


def parse_directory(data: bytes) -> api.Directory:
    """Raises EngineUnbelievable."""
    try:
        return api.Directory.FromString(data)
    except DecodeError as error:
        raise EngineUnbelievable("a Directory that can't be read") from error


def walk(root: Content, read: Callable[[Iterable[Content]], Mapping[Content, bytes]], most: int) -> Contents:
    """Everything below the directory `root`, level by level; `read` answers messages by their digests, verified. At
    most `most` names. Raises EngineUnbelievable, and what `read` raises."""
    found = Contents([], [], [])
    known: dict[Content, api.Directory] = {}
    level = [(b"", root)]
    while level:
        _count(found, most, len(level))
        lacking = dict.fromkeys([content for _, content in level if content not in known])
        for content in lacking:
            if content.size > MESSAGE_BYTES:
                raise EngineUnbelievable(f"a Directory of {content.size} bytes")
        known.update({content: parse_directory(data) for content, data in read(lacking).items()})
        level = [pair for path, content in level for pair in _enter(path, known[content], found, most)]
    return found


def walk_tree(data: bytes, most: int) -> Contents:
    """The same of a Tree message, which holds all of its directories."""
    try:
        tree = api.Tree.FromString(data)
    except DecodeError as error:
        raise EngineUnbelievable("a Tree that can't be read") from error
    messages = [child.SerializeToString(deterministic=True) for child in tree.children]
    held = {content_of(message): message for message in messages}
    # Whoever serialized them otherwise than we do named them by other digests: what was sent is then found as it is.
    root = tree.root.SerializeToString(deterministic=True)
    held[content_of(root)] = root

    def read(contents: Iterable[Content]) -> dict[Content, bytes]:
        try:
            return {content: held[content] for content in contents}
        except KeyError as error:
            raise EngineUnbelievable("a Tree that lacks one of its directories") from error

    return walk(content_of(root), read, most)


def _enter(path: bytes, directory: api.Directory, found: Contents, most: int) -> list[tuple[bytes, Content]]:
    """Take in what is in one directory; answers the directories below."""
    names = [node.name for node in directory.files]
    names += [node.name for node in directory.directories] + [node.name for node in directory.symlinks]
    if len(set(names)) < len(names):
        raise EngineUnbelievable(f"a name that stands twice in the directory {show(path)}")
    _count(found, most, len(names))
    for node in directory.files:
        found.files.append(File(_below(path, node.name), read_digest(node.digest), node.is_executable))
    for symlink in directory.symlinks:
        target = symlink.target.encode()
        if not 0 < len(target) <= TARGET_BYTES or b"\0" in target:
            raise EngineUnbelievable(f"a link in {show(path)} to nowhere")
        found.links.append(Link(_below(path, symlink.name), target))
    below = [(_below(path, child.name), read_digest(child.digest)) for child in directory.directories]
    found.directories += [place for place, _ in below]
    return below


def _below(path: bytes, name: str) -> bytes:
    encoded = name.encode()
    if b"/" in encoded:
        raise EngineUnbelievable(f"a name with a slash: {show(encoded)}")
    whole = path + b"/" + encoded if path else encoded
    try:
        check_path(whole)
    except UnsafePath as error:
        raise EngineUnbelievable(str(error)) from error
    return whole


def _count(found: Contents, most: int, more: int) -> None:
    if len(found.files) + len(found.links) + len(found.directories) + more > most:
        raise EngineUnbelievable(f"a tree of more than {most} names, or deeper than {DEPTH}")
