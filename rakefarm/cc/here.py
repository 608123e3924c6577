"""A compile on this machine whose result is to be kept: run by the helper, which so sees what comes of it.

It is kept only if it is certain that the compiler has read what the helper has read: all inputs are the same after the
compile as before, none was changed so shortly before it that its time can't tell, and nobody else wrote the outputs.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from rakefarm import process
from rakefarm.cc.closure import Closure
from rakefarm.cc.filecache import RACY_NS
from rakefarm.cc.inquiry import Inquiry
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.results import Made
from rakefarm.cc.toolchain import name_for, quote
from rakefarm.records import LARGEST_BYTES


class Run(Struct, frozen=True):
    """How it ended, and the result if it may be kept."""

    status: int
    stdout: bytes
    stderr: bytes
    made: Made | None


class Here:
    """Runs compiles, as many at a time as there are `places`. For any thread."""

    def __init__(self, places: threading.Semaphore) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._writers: dict[bytes, object] = {}

    def run(self, inquiry: Inquiry, closure: Closure, cancel: int, look_again: Callable[[], Closure]) -> Run:
        """The call as it was made. It is killed when the descriptor `cancel` becomes readable. Raises Local when it
        can't be started, or was killed."""
        with self._places:
            began_ns = time.time_ns()
            me, alone = self._begin(inquiry.targets)
            try:
                status, stdout, stderr = _run(inquiry, cancel)
            finally:
                alone = self._end(inquiry.targets, me) and alone
        made = None
        if not status and not stdout and alone and _is_settled(closure, began_ns):
            contents = _contents(inquiry.targets)
            if contents is not None and _is_same(look_again, closure):
                made = Made(stderr, contents)
        return Run(status, stdout, stderr, made)

    def _begin(self, targets: Sequence[bytes]) -> tuple[object, bool]:
        me = object()
        with self._lock:
            alone = not any(target in self._writers for target in targets)
            self._writers.update(dict.fromkeys(targets, me))
        return me, alone

    def _end(self, targets: Sequence[bytes], me: object) -> bool:
        """Whether nobody else has begun to write there meanwhile."""
        with self._lock:
            mine = [target for target in targets if self._writers.get(target) is me]
            for target in mine:
                del self._writers[target]
        return len(mine) == len(targets)


def _run(inquiry: Inquiry, cancel: int) -> tuple[int, bytes, bytes]:
    request, program = inquiry.request, inquiry.toolchain.program
    name = name_for(program, request.words[0], request.directory, os.fsencode(request.environ.get("PATH", "")))
    words = b" ".join([quote(word) for word in (*inquiry.colours, *request.words[1:])])
    called = program if name == program or b"/" in name else name
    command = b"umask %o; exec %b %b" % (request.umask, quote(called), words)
    variables = {os.fsencode(key): os.fsencode(value) for key, value in request.environ.items()}
    completed = process.run(
        command, {**variables, b"RAKEFARM_CC": b"off"}, directory=inquiry.directory, cancel=cancel
    )  # fmt: skip
    try:
        stdout, stderr = b"".join(completed.stdout.pieces()), b"".join(completed.stderr.pieces())
    finally:
        completed.close()
    match completed.ending:
        case process.Exited(status):
            return status, stdout, stderr
        case process.Signalled(number):
            return 128 + number, stdout, stderr
        case process.Cancelled():
            raise Local(Reason.CANCELLED)
        case _:
            raise Local(Reason.FAULT, str(completed.ending))


def _is_settled(closure: Closure, began_ns: int) -> bool:
    """Whether the times of all inputs can tell if one was changed since."""
    return all(facts.identity[4] < began_ns - RACY_NS for facts in closure.files.values())


def _is_same(look_again: Callable[[], Closure], closure: Closure) -> bool:
    try:
        now = look_again()
    except Local:
        return False
    return now.files == closure.files


def _contents(targets: Sequence[bytes]) -> tuple[bytes, ...] | None:
    contents = []
    for target in targets:
        try:
            with open(target, "rb") as file:
                contents.append(file.read(LARGEST_BYTES + 1))
        except OSError:
            return None
        if len(contents[-1]) > LARGEST_BYTES:
            return None
    return tuple(contents)
