"""How a call is sent: its files below one directory as they lie below `/` here, and the command for there.

    BOX/home/me/project/a.c        what is /home/me/project/a.c here
    BOX/home/me/project/build/     where the command runs
    BOX/.rakefarm-same             which of its own files the server must have as they are here

Relative names mean the same in there; absolute ones get BOX in front, and -ffile-prefix-map takes it away again from
whatever an object records. The command first prints what BOX is, since the client takes it out of messages and
dependency files, and refuses an object that holds it.
"""

import hashlib
import os
from collections.abc import Iterable

from msgspec import Struct

from rakefarm.cc.closure import Closure, plain_path
from rakefarm.cc.commandline import Call, Word
from rakefarm.cc.inquiry import Inquiry
from rakefarm.cc.options import Role
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.resultkeys import times_that_matter
from rakefarm.cc.shipment import Shipment
from rakefarm.cc.toolchain import Toolchain, quote
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.messages import Input
from rakefarm.wire.paths import check_path, check_paths

SAME_PATH = b".rakefarm-same"
KEPT_NAME = b".rakefarm-directory"
"""An empty file that makes a directory be there: directories are not sent."""
EMPTY = hashlib.sha256(b"").digest()
BEGINNING = b'B=$PWD;echo "$B";'
"""With which every command tells where it runs."""
COMMAND_BYTES = 120_000
"""A word of a command line has 128 KiB at most (Linux, MAX_ARG_STRLEN), and the shell gets all of it as one."""
_SHARED = (b"/usr/include/", b"/usr/lib/", b"/usr/lib32/", b"/usr/lib64/", b"/usr/libx32/", b"/usr/local/include/",
           b"/usr/local/lib/", b"/usr/share/")  # fmt: skip
"""What belongs to the system: every host has its own, and it is compared, not sent."""
_PATHS = (Role.QUOTE, Role.BRACKET, Role.SYSTEM, Role.AFTER, Role.INCLUDE, Role.OUTPUT, Role.DEPENDENCY_FILE)


class Shared(Struct, frozen=True):
    """Which paths are the system's, here and on the server: everything below one of `places` (each with its `/`)."""

    places: tuple[bytes, ...]

    def has(self, path: bytes) -> bool:
        """Whether the server uses its own file of this path."""
        return path.startswith(self.places)


def shared_by(toolchain: Toolchain) -> Shared:
    """The system's directories and those that the compiler searches by itself."""
    return Shared((*_SHARED, *(place + b"/" for place in toolchain.builtin)))


def shared_with_stranger(toolchain: Toolchain) -> Shared:
    """With a server that has our compiler, but other headers of the system, which it is sent."""
    return Shared(tuple([place + b"/" for place in toolchain.own]))


SHARED_WITH_NOBODY = Shared(())
"""With a server that has another compiler, and is sent ours: everything else, too."""


class Package(Struct, frozen=True):
    """What is sent: entries and, in the same order, where each is here; the text of SAME_PATH, whose entry is the first
    one; the command; and the outputs' paths there and here."""

    entries: tuple[Input, ...]
    sources: tuple[bytes, ...]
    same: bytes
    command: bytes
    produces: tuple[bytes, ...]
    targets: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum([entry.size for entry in self.entries])

    @property
    def name(self) -> bytes:
        """The same for the same call over the same inputs, whoever makes it."""
        return hashlib.sha256(self.command + b"".join([entry.sha256 for entry in self.entries])).digest()


def check_place(inquiry: Inquiry, shared: Shared) -> None:
    """Raises Local for a call in a directory of the system, or with outputs there, which would not be sent."""
    for path in (inquiry.directory + b"/", *inquiry.targets):
        if shared.has(path):
            raise Local(Reason.DIRECTORY, os.fsdecode(path))


def can_ship(call: Call, toolchain: Toolchain) -> bool:
    """Whether the compiler can be told to look for the system's headers in another place, all of them."""
    return len(toolchain.own) < len(toolchain.builtin) and b"-isysroot" not in call.search


def pack(inquiry: Inquiry, closure: Closure, shared: Shared, shipment: Shipment | None = None) -> Package:
    """The call, ready to be sent, with the compiler if that is to be sent, too. Raises Local for a name that can't
    be."""
    call, directory, targets = inquiry.call, inquiry.directory, inquiry.targets
    passed = set(closure.passed)
    same = same_text(closure, shared)
    files = [(path, facts) for path, facts in closure.files.items() if not shared.has(path)]
    entries = [Input(SAME_PATH, b"", 0o600, 0, len(same), hashlib.sha256(same).digest())]
    # Another's result is the same where these don't matter: a fresh checkout has other times.
    times = times_that_matter(list(closure.files.items()))
    entries += [Input(path[1:], b"", facts.mode, times.get(path, 0), facts.size, facts.sha256) for path, facts in files]
    sources = [b"", *(path for path, _ in files)]
    if shipment is not None:
        entries += shipment.entries
        sources += shipment.sources
    passed |= {directory, *(os.path.dirname(target) for target in targets)}
    if call.wants_directories:
        named = (*call.quote, *call.bracket, *call.system, *call.after)
        passed |= {place for name in named if os.path.isdir(place := plain_path(os.path.join(directory, name), passed))}
    for place in _lacking(passed, [path for path, _ in files], shared):
        entries.append(Input(place[1:] + b"/" + KEPT_NAME, b"", 0o600, 0, 0, EMPTY))
        sources.append(b"/dev/null")
    compiler = quote(inquiry.toolchain.program) if shipment is None else shipment.start
    command = _command(inquiry, shared, compiler)
    produces = tuple([target[1:] for target in targets])
    try:
        check_paths([entry.path for entry in entries])
        for path in produces:
            check_path(path)
    except UnsafePath as error:
        raise Local(Reason.ODD_NAME, error.text) from error
    return Package(tuple(entries), tuple(sources), same, command, produces, targets)


def same_text(closure: Closure, shared: Shared) -> bytes:
    """One line for each file of the system: its digest, or `-` for one that must not be there, and its path."""
    lines = [b"%b %b\n" % (facts.sha256.hex().encode(), p) for p, facts in closure.files.items() if shared.has(p)]
    lines += [b"- %b\n" % path for path in closure.absent if shared.has(path)]
    if any(b"\n" in line[:-1] for line in lines):
        raise Local(Reason.ODD_NAME, "a line break in the name of a system header")
    return b"".join(sorted(lines))


def _lacking(wanted: Iterable[bytes], sources: Iterable[bytes], shared: Shared) -> list[bytes]:
    """The directories that no file makes be there."""
    there = {b"/"}
    for source in sources:
        place = os.path.dirname(source)
        while place not in there:
            there.add(place)
            place = os.path.dirname(place)
    return sorted(place for place in wanted if place not in there and not shared.has(place + b"/"))


def _command(inquiry: Inquiry, shared: Shared, compiler: bytes) -> bytes:
    words = [] if shared == shared_by(inquiry.toolchain) else [b"-isysroot", b'"$B"']
    words += [b'"-ffile-prefix-map=$B="', *(quote(word) for word in inquiry.colours)]
    for word in inquiry.call.words:
        words += _written(word, shared)
    there = quote(b"./" + inquiry.directory[1:])
    command = BEGINNING + b"cd %b&&exec %b %b" % (there, compiler, b" ".join(words))
    if len(command) > COMMAND_BYTES:
        raise Local(Reason.TOO_LONG)
    return command


def _written(word: Word, shared: Shared) -> list[bytes]:
    """The word for the shell there."""
    if word.role is None:
        return [_there(b"", word.text, shared)]
    value = word.value
    if value is None:
        return [quote(word.text)]
    if word.role in _PATHS:
        if word.separate:
            return [quote(word.text), _there(b"", value, shared)]
        return [_there(word.text, value, shared)]
    if word.role is Role.PREFIX_MAP:
        # Both as it is, for the system's files, and for ours; of several that fit the last one counts.
        plain = quote(word.text + value)
        return [plain, quote(word.text) + b'"$B"' + quote(value)] if value.startswith(b"/") else [plain]
    if word.role is Role.PREPROCESSOR:
        parts = [_there(b"", part, shared) for part in value.split(b",")]
        return [quote(word.text) + b",".join(parts)]
    return [quote(each) for each in word.written()]


def _there(option: bytes, path: bytes, shared: Shared) -> bytes:
    if path.startswith(b"/") and not shared.has(path + b"/"):
        return quote(option) + b'"$B"' + quote(path)
    return quote(option + path)
