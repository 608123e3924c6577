"""What a client gets of a command that has ended: how, what it wrote, and the files that it made."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from rakefarm.server.job import Ended
from rakefarm.server.limits import TooMuch
from rakefarm.server.store import Store
from rakefarm.snapshot import Made, MissingOutput, UnfitOutput, open_made
from rakefarm.transport import Transport
from rakefarm.wire.messages import Output, Result, Stderr, Stdout
from rakefarm.wire.paths import show

READ_BYTES = 256 << 10


class Conclusion(Struct, frozen=True):
    """What RESULT says of the end, and the files that follow it."""

    outcome: str
    status: int
    detail: str
    made: list[Made]


def conclude(ended: Ended, exceeded: str, collect: Callable[[], list[Made]]) -> Conclusion:
    """Judge a command's end; `exceeded` says which limit ended it, if one did. What it made is collected if it went
    well, and may turn out to be what it must not be."""
    outcome, status, detail = ended.outcome, ended.status, ended.detail
    if outcome == "unfit_command":
        detail = f"the command could not be started: {detail}"
    if exceeded:
        outcome, status, detail = "over_limit", 0, exceeded
    made: list[Made] = []
    if outcome == "exited" and status == 0:
        try:
            made = collect()
        except UnfitOutput as unfit:
            outcome, detail = "unfit_output", str(unfit)
        except TooMuch as much:
            outcome, detail = "over_limit", str(much)
        except MissingOutput as missing:
            outcome, detail = "missing_output", f"the declared output {show(missing.path)} was not made"
    return Conclusion(outcome, status, detail, made)


def write_answer(
    transport: Transport, result: Result, ended: Ended, files: Sequence[int], made: Sequence[Made]
) -> None:
    """RESULT, both streams, of which the long ones are in `files`, and the outputs. Raises Lost, and OSError when an
    output is another than it was."""
    transport.gather(result)
    handed = iter(files)
    for message, size, data in (
        (Stdout(), ended.stdout_bytes, ended.stdout),
        (Stderr(), ended.stderr_bytes, ended.stderr),
    ):
        if size:
            pieces = iter([data]) if len(data) == size else _read_pieces(next(handed))
            transport.gather_pieces(message, size, pieces)
    for file in made:
        descriptor = open_made(file)
        try:
            transport.gather_file(Output(file.path, file.mode, file.sha256), descriptor, file.size)
        finally:
            os.close(descriptor)


def keep_outputs(store: Store, made: Sequence[Made]) -> None:
    """Have the store keep what was made, since the next action may need it; that can fail without harm."""
    for file in made:
        if store.has(file.sha256, file.size):
            continue
        with contextlib.suppress(OSError):
            descriptor = open_made(file)
            try:
                store.add(file.sha256, b"/proc/self/fd/%d" % descriptor, file.size)
            finally:
                os.close(descriptor)


def _read_pieces(descriptor: int) -> Iterator[bytes]:
    position = 0
    while data := os.pread(descriptor, READ_BYTES, position):
        yield data
        position += len(data)
