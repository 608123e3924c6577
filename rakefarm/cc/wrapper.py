"""The launcher in Python: for the first call, before there is a compiled one, and where there never will be.

A call never fails because of us: without a helper the compiler runs here. Exit statuses of our own are 100 and up, so
that none is taken for the compiler's.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum

from rakefarm.cc import dialogue, locations
from rakefarm.cc.reasons import Local
from rakefarm.cc.toolchain import find_compiler, name_for

START_S = 5.0
POLL_S = 0.01


class CallStatus(IntEnum):
    """Our own faults, above what compilers use."""

    NO_COMPILER = 100  # the compiler can't be found or executed
    USAGE = 101  # rakefarm cc itself was called in a wrong way
    NO_HELPER = 102  # the helper can't be asked (of --statistics, say; a compile runs here then)


def call(words: Sequence[bytes], environ: Mapping[str, str]) -> int:
    """One compiler call."""
    if environ.get("RAKEFARM_CC") == "off":
        return _execute(b"", words, environ)
    try:
        sock = open_helper(environ)
        sock.sendall(_request(words, environ))
        answer = dialogue.receive_answer(sock)
    except (OSError, dialogue.Malformed, locations.LocationError) as error:
        if environ.get("RAKEFARM_VERBOSE"):
            _say(f"here: no helper: {error}")
        return _execute(b"", words, environ)
    if answer.kind == dialogue.DONE:
        _write(1, answer.stdout)
        _write(2, answer.stderr)
        return answer.status
    program, name, why = answer.text.split(b"\0", 2)
    if why:
        _say("here: " + why.decode("utf-8", "surrogateescape"))
    os.set_inheritable(sock.fileno(), True)  # the helper counts the compiler for as long as it holds this
    sock.detach()
    return _execute(program, [name, *words[1:]], environ)


def _request(words: Sequence[bytes], environ: Mapping[str, str]) -> bytes:
    umask = os.umask(0)
    os.umask(umask)
    variables = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    return dialogue.encode_request(umask, os.isatty(2), os.getcwdb(), words, variables)


def ask_helper(words: Sequence[bytes], environ: Mapping[str, str], start: bool) -> dialogue.Answer:
    """Have the helper itself do something. Raises OSError, Malformed or LocationError."""
    with open_helper(environ) if start else _connect(locations.runtime_directory(environ)) as sock:
        sock.sendall(_request(words, environ))
        return dialogue.receive_answer(sock)


def open_helper(environ: Mapping[str, str]) -> socket.socket:
    """A connection to the helper, which is started if need be. Raises OSError or LocationError."""
    directory = locations.runtime_directory(environ)
    try:
        return _connect(directory)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    from rakefarm.process import start_detached

    # -c and not -m: the directory that we stand in is the user's, and may hold anything.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {root!r}); from rakefarm.cc.command import helper; sys.exit(helper())"
    start_detached([sys.executable, "-c", code], dict(environ))
    deadline = time.monotonic() + START_S
    while True:
        try:
            return _connect(directory)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def _connect(directory: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(os.path.join(directory, "socket"))
    except BaseException:
        sock.close()
        raise
    return sock


def _execute(program: bytes, words: Sequence[bytes], environ: Mapping[str, str]) -> int:
    try:
        if not program:
            directory, search = os.getcwdb(), os.fsencode(environ.get("PATH", os.defpath))
            program = find_compiler(words[0], directory, search)
            words = [name_for(program, words[0], directory, search), *words[1:]]
        os.execve(program, list(words), {**environ, "RAKEFARM_CC": "off"})
    except Local:
        _say(f"there is no {os.fsdecode(words[0])} on the PATH")
    except OSError as error:
        _say(f"can't execute {os.fsdecode(program)}: {error.strerror}")
    return CallStatus.NO_COMPILER


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _say(text: str) -> None:
    _write(2, f"rakefarm cc: {text}\n".encode("utf-8", "backslashreplace"))
