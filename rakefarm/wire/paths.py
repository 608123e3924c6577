"""The one grammar of paths on the wire, the same function at both ends.

A path is a byte string relative to the action's directory, parts separated by `/`. It is not empty, has no
empty, `.` or `..` part, no NUL and no control byte, and at most PATH_BYTES bytes, DEPTH parts and PART_BYTES
bytes a part.
"""

from collections.abc import Iterable

from rakefarm.wire.errors import UnsafePath

PATH_BYTES = 1024
PART_BYTES = 255  # NAME_MAX of every Linux file system in use
DEPTH = 32


def show(path: bytes) -> str:
    """The path for a person or a log: one line, undecodable bytes escaped, and not endless."""
    text = path.decode("utf-8", "backslashreplace")
    escaped = [char if char.isprintable() else char.encode("unicode_escape").decode() for char in text]
    printable = "".join(escaped)
    return f"'{printable if len(printable) <= 120 else printable[:117] + '...'}'"


def check_path(path: bytes) -> None:
    """Raises UnsafePath, with the reason, unless `path` follows the grammar."""
    if not path:
        raise UnsafePath("an empty path")
    if len(path) > PATH_BYTES:
        raise UnsafePath(f"the path {show(path)} has {len(path)} bytes, more than {PATH_BYTES}")
    if path.startswith(b"/"):
        raise UnsafePath(f"the path {show(path)} is absolute")
    if min(path) < 0x20 or 0x7F in path:
        raise UnsafePath(f"the path {show(path)} has a control byte")
    parts = path.split(b"/")
    if len(parts) > DEPTH:
        raise UnsafePath(f"the path {show(path)} is deeper than {DEPTH} parts")
    for part in parts:
        if part in (b"", b".", b".."):
            raise UnsafePath(f"the path {show(path)} has the part {show(part)}")
        if len(part) > PART_BYTES:
            raise UnsafePath(f"the path {show(path)} has a part of more than {PART_BYTES} bytes")


def check_paths(paths: Iterable[bytes]) -> None:
    """Raises UnsafePath unless every path follows the grammar, none stands twice, and none is the parent
    directory of another (a name can't be a file and a directory)."""
    seen: set[bytes] = set()
    directories: set[bytes] = set()
    for path in paths:
        check_path(path)
        if path in seen:
            raise UnsafePath(f"the path {show(path)} is named twice")
        seen.add(path)
        while (cut := path.rfind(b"/")) > 0:
            path = path[:cut]
            if path in directories:
                break
            directories.add(path)
    if both := seen & directories:
        raise UnsafePath(f"the path {show(min(both))} is a file and a directory")
