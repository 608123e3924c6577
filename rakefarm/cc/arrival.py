"""What comes back of a compile elsewhere: the directory where it ran is taken out, and its files get their names."""

import mmap
import os
from collections.abc import Callable

from msgspec import Struct

from rakefarm.capture import Capture
from rakefarm.cc import depfile
from rakefarm.cc.inquiry import Inquiry
from rakefarm.cc.layout import Package
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.results import Made
from rakefarm.client.outputs import Incoming, OutputError
from rakefarm.records import LARGEST_BYTES

SMALL_BYTES = 1 << 20
"""Objects up to this size are read to be looked through; larger ones are mapped, which costs more."""


class Compiled(Struct, frozen=True):
    """A call that was done: how it ended, and on which `host`, where the result may have been `kept` of an earlier one;
    or `here`, and why; or with neither, that its result was kept by us. `missed` says why we had none, `made` is the
    result, if it may be kept; `keep` keeps it, and is to be called when the caller has its answer."""

    stderr: bytes
    host: str = ""
    kept: bool = False
    here: Local | None = None
    status: int = 0
    stdout: bytes = b""
    missed: str = ""
    made: Made | None = None
    keep: Callable[[], None] | None = None


def split_told(stdout: Capture) -> tuple[bytes, bytes]:
    """The directory where a command says that it ran, empty when it does not, and whatever else it said."""
    box, _, rest = b"".join(stdout.pieces()).partition(b"\n")
    return (box if box.startswith(b"/") else b""), rest


def take_in(
    incoming: Incoming, package: Package, inquiry: Inquiry, box: bytes, messages: bytes, repeatable: bool
) -> Made | None:
    """Take the directory `box` out of what came back, and give the files their names. Answers the result that may be
    kept, if the call is `repeatable`. Raises Local, OSError."""
    call, dependency_file = inquiry.call, None
    if call.dependency_file is not None:
        dependency_file = package.produces[call.outputs.index(call.dependency_file)]
    for path, descriptor in incoming.descriptors().items():
        if path == dependency_file:
            size = os.fstat(descriptor).st_size
            text = depfile.without(os.pread(descriptor, size, 0), box, inquiry.toolchain.family)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
        elif _holds(descriptor, box):
            raise Local(Reason.LEAKED_PATH, os.fsdecode(path))
    descriptors = incoming.descriptors()
    contents = [_content(descriptors.get(path, -1)) for path in (package.produces if repeatable else ())]
    install(incoming, inquiry)
    if not repeatable or None in contents:
        return None
    return Made(messages, tuple([each or b"" for each in contents]))


def install(incoming: Incoming, inquiry: Inquiry) -> None:
    """Give the outputs of a call their names. Raises Local."""
    try:
        incoming.install(umask=inquiry.request.umask)
    except OutputError as error:
        raise Local(Reason.FAULT, str(error)) from error


def _content(descriptor: int) -> bytes | None:
    """What is in a file that may be kept; None when it is too large, or there is none."""
    size = os.fstat(descriptor).st_size if descriptor >= 0 else LARGEST_BYTES + 1
    return os.pread(descriptor, size, 0) if size <= LARGEST_BYTES else None


def _holds(descriptor: int, text: bytes) -> bool:
    size = os.fstat(descriptor).st_size
    if size <= SMALL_BYTES:
        return text in os.pread(descriptor, size, 0)
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0
