"""The standard streams of a command: open in any case; whatever becomes of them, no traceback and a clear status."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from rakefarm.codes import Code, coded
from rakefarm.exitcodes import ExitStatus


def ensure_open() -> None:
    """Descriptors that were closed when we started lead to /dev/null, as if somebody had said so; else the first file
    that we open would be taken for one of them."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number, which is this one. What we start inherits it as it would any other.
            assert os.open(os.devnull, os.O_RDWR) == descriptor
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - it lasts as long as we do


def say(text: str) -> None:
    """A line on standard error, if anybody can see it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _silence(2)


def finish(status: int) -> int:
    """Write what still waits for standard output; answers the status to end with."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(1)
        return int(ExitStatus.OUTPUT_CLOSED)
    except (OSError, ValueError) as error:
        _silence(1)
        reason = getattr(error, "strerror", None) or error
        say(f"rakefarm: error: {coded(f'cannot write standard output: {reason}', Code.NOT_SHOWN)}")
        return status or int(ExitStatus.ACTION_FAILED)
    return status


def leave(status: int) -> NoReturn:
    """End the process now, both streams written; the kernel clears away what is left, faster than the interpreter."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def printed(run: Callable[[], int]) -> int:
    """The status of a command that prints and ends: what `run` answers, unless standard output takes no more."""
    try:
        status = run()
    except BrokenPipeError:
        _silence(1)
        return int(ExitStatus.OUTPUT_CLOSED)
    except OSError as error:
        _silence(1)
        text = f"{error.filename or 'cannot write standard output'}: {error.strerror}"
        say(f"rakefarm: error: {coded(text, Code.NOT_SHOWN)}")
        return int(ExitStatus.ACTION_FAILED)
    return finish(status)


def _silence(descriptor: int) -> None:
    """What Python still holds for this stream vanishes; it would try once more at the end, and complain."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
