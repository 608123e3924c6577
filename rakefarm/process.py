"""Run one command: own session, empty standard input, both pipes drained, the whole tree ended.

The only module that starts programs. `run` blocks the calling thread; it starts the command with
`posix_spawn`, which uses vfork semantics and so costs the same from a large process as from a small one
(fork from a 300 MB parent: 16 ms; this: 0.6 ms).

How a command ended is a closed set, consumed with `match`: Exited | Signalled | TimedOut | Cancelled |
CouldNotStart.
"""

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm.capture import Capture
from rakefarm.words import split_plain

if TYPE_CHECKING:
    import subprocess

SHELL = "/bin/sh"
READ_BYTES = 65536
STRAGGLER_S = 1.0
"""How long a pipe is still drained after the command's tree was killed, should something outside hold it."""
BEAT_S = 0.2
LONGEST_WAIT_S = 86_400.0
"""poll(2) counts milliseconds in 31 bits."""
_DEFAULTED = (
    signal.SIGINT,
    signal.SIGQUIT,  # as SIGINT ignored by what a shell starts in the background
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
    signal.SIGUSR1,
)


class Exited(Struct, frozen=True):
    """Ended by itself."""

    status: int


class Signalled(Struct, frozen=True):
    """Ended by a signal that we did not send."""

    number: int


class TimedOut(Struct, frozen=True):
    """Killed because its time was up."""


class Cancelled(Struct, frozen=True):
    """Killed because whoever asked for it is gone or asked to stop."""


class CouldNotStart(Struct, frozen=True):
    """The shell could not be started; `text` is the system's reason. `unfit`: because of the command (it is too long,
    say), so that no machine could start it; else it is this machine that could not."""

    text: str
    unfit: bool = False


Ending = Exited | Signalled | TimedOut | Cancelled | CouldNotStart


class Completed(Struct, frozen=True):
    """A command's end, what it used (seconds, bytes) and what it wrote. Close both captures when done."""

    ending: Ending
    elapsed_s: float
    cpu_s: float
    peak_memory_bytes: int
    stdout: Capture
    stderr: Capture

    def close(self) -> None:
        """Release both captures."""
        self.stdout.close()
        self.stderr.close()


def kill_group(pid: int) -> None:
    """Kill the process group of a command; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def run(
    command: bytes,
    environment: Mapping[bytes, bytes],
    *,
    directory: bytes | None = None,
    words: Sequence[bytes] | None = None,
    cancel: int | None = None,
    timeout_s: float | None = None,
    streams: tuple[Capture, Capture] | None = None,
    end_strays: Callable[[], None] | None = None,
    on_start: Callable[[int], None] | None = None,
    beat: Callable[[int], None] | None = None,
) -> Completed:
    """Run `command` as `/bin/sh -c` would, in `directory` (else the current one), until it and its group are gone.

    A command of plain words is started without the shell (see `words`); `environment` should have PWD then. So is one
    whose `words` the caller knows, the first the program's path; where that can't be, no shell is asked either.

    `cancel` is a descriptor: when it becomes readable, or its peer closes, the command is killed. `end_strays`
    is called after the end, to kill what left the group; `on_start` and, every BEAT_S while it runs, `beat` with its
    process id. `streams` are what standard output and standard error are captured in. Raises OSError when pipes or the
    spill file fail; the
    command is then killed first.
    """
    stdout, stderr = streams or (Capture(), Capture())
    started = time.monotonic()
    try:
        pid, out, err = _spawn(words[0], words, environment) if words else _start(command, environment, directory)
    except (OSError, ValueError) as error:  # ValueError: a NUL, or a variable without a name
        return Completed(_could_not_start(error), 0.0, 0.0, 0, stdout, stderr)
    killed: Ending | None = None
    reaped = False
    pidfd = os.pidfd_open(pid)
    try:
        if on_start is not None:
            on_start(pid)
        deadline = None if timeout_s is None else started + timeout_s
        captures = {out: stdout, err: stderr}
        killed = _drain_until_exit(pidfd, captures, cancel, deadline, (lambda: beat(pid)) if beat else None)
        if killed is not None or end_strays is None:
            kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
        reaped = True
        elapsed = time.monotonic() - started
        if end_strays is not None:
            end_strays()
        _drain_rest(captures)
    except BaseException:
        stdout.close()  # a spill file would fill the disk for as long as we live
        stderr.close()
        raise
    finally:
        if not reaped:
            kill_group(pid)
            os.waitpid(pid, 0)
        for descriptor in (pidfd, out, err):
            os.close(descriptor)
    ending = killed or _ending(status)
    return Completed(ending, elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, stdout, stderr)


def _could_not_start(error: OSError | ValueError) -> CouldNotStart:
    if isinstance(error, OSError):
        return CouldNotStart(error.strerror or str(error), unfit=error.errno == errno.E2BIG)
    return CouldNotStart(str(error), unfit=True)


def _ending(status: int) -> Ending:
    code = os.waitstatus_to_exitcode(status)
    return Exited(code) if code >= 0 else Signalled(-code)


def _start(command: bytes, environment: Mapping[bytes, bytes], directory: bytes | None) -> tuple[int, int, int]:
    if directory is not None:
        changed = 'cd -- "$1" && exec /bin/sh -c "$2"'
        return _spawn(SHELL, [SHELL, "-c", changed, "sh", directory, command], environment)
    plain = split_plain(command, environment)
    if plain is not None:
        with contextlib.suppress(OSError):  # a script without #!, say: the shell knows what to do with it
            return _spawn(plain[0], plain[1], environment)
    return _spawn(SHELL, [SHELL, "-c", command], environment)


def _spawn(
    program: str | bytes, arguments: Sequence[bytes | str], environment: Mapping[bytes, bytes]
) -> tuple[int, int, int]:
    """Start the program in a session of its own; answers its pid and the read ends of both pipes."""
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            program,
            [*arguments],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out_write, 1),
                (os.POSIX_SPAWN_DUP2, err_write, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULTED,
        )
    except BaseException:
        os.close(out_read)
        os.close(err_read)
        raise
    finally:
        os.close(out_write)
        os.close(err_write)
    return pid, out_read, err_read


def _drain_until_exit(
    pidfd: int,
    streams: dict[int, Capture],
    cancel: int | None,
    deadline: float | None,
    beat: Callable[[], None] | None,
) -> Ending | None:
    """Read both pipes until the process has ended; one that came to its end is taken out of `streams`.

    Answers why the process has to be killed, or None.
    """
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    for descriptor in streams:
        poller.register(descriptor, select.POLLIN)
    if cancel is not None:
        poller.register(cancel, select.POLLIN | select.POLLRDHUP)
    beat_at = time.monotonic() + BEAT_S if beat else None
    while True:
        due = [at for at in (deadline, beat_at) if at is not None]
        wait_ms = min(max(0.0, min(due) - time.monotonic()), LONGEST_WAIT_S) * 1000 if due else None
        ready = poller.poll(wait_ms)
        if beat is not None and beat_at is not None and time.monotonic() >= beat_at:
            beat()
            beat_at = time.monotonic() + BEAT_S
        exited = False
        for descriptor, what in ready:
            if descriptor == pidfd:
                exited = True
            elif descriptor == cancel:
                return Cancelled()
            elif what & select.POLLIN and (data := os.read(descriptor, READ_BYTES)):
                streams[descriptor].write(data)
            else:  # its end: nothing to read, and nobody left to write
                poller.unregister(descriptor)
                del streams[descriptor]
        if exited:
            return None
        if deadline is not None and time.monotonic() >= deadline:
            return TimedOut()


def _drain_rest(streams: dict[int, Capture]) -> None:
    """Read what is still in the pipes of a killed tree, up to their end."""
    deadline = time.monotonic() + STRAGGLER_S
    for descriptor, capture in streams.items():
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while True:
            ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            data = os.read(descriptor, READ_BYTES) if ready else b""
            if not data:
                break
            capture.write(data)


def start_background(
    arguments: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int] = (), error: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start a program of ours in a session of its own, its standard output a pipe for us to read; it has these of our
    descriptors besides. Its standard error is ours, or goes to the file `error`."""
    import subprocess

    with contextlib.ExitStack() as files:
        return subprocess.Popen(
            arguments,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if error is None else files.enter_context(open(error, "ab")),
            start_new_session=True,
            pass_fds=descriptors,
        )


def start_quiet(arguments: Sequence[str], environment: Mapping[str, str], path: str) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own, its input empty; the file at `path` has what it says, and nothing from
    before. Raises OSError."""
    import subprocess

    with open(path, "wb") as file:
        return subprocess.Popen(
            arguments,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def start_with_pipes(arguments: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own, which no terminal signals; all its streams are pipes of ours. Raises
    OSError."""
    import subprocess

    pipe = subprocess.PIPE
    return subprocess.Popen(
        arguments, env=dict(environment), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )


def start_foreground(arguments: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a program that has our streams and our terminal, and is found by the PATH in `environment`. Raises
    OSError."""
    import subprocess

    return subprocess.Popen(arguments, env=dict(environment))


def wait_at_most(child: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether it has ended by then."""
    import subprocess

    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def run_with_input(arguments: Sequence[str], environment: Mapping[str, str], data: bytes) -> int:
    """Run a program, its standard input `data`, its output and complaints ours; answers its exit status, 127 when there
    is no such program."""
    import subprocess

    try:
        return subprocess.run(arguments, env=dict(environment), input=data, check=False).returncode
    except OSError:
        return 127


def start_filter(arguments: Sequence[str], environment: Mapping[str, str], end: int, errors: int) -> int:
    """Start a program that reads from and writes to the socket `end`, and complains into the file `errors`, in a
    session of its own; answers its pid. Raises OSError."""
    return os.posix_spawnp(
        arguments[0],
        list(arguments),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, end, 0),
            (os.POSIX_SPAWN_DUP2, end, 1),
            (os.POSIX_SPAWN_DUP2, errors, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULTED,
    )


def start_detached(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start a program of ours that outlives us, in a session of its own, without our streams. Answers its pid."""
    return os.posix_spawn(
        arguments[0],
        list(arguments),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULTED,
    )


def start_aside(script: str, stdin: int, file: int) -> int:
    """Start a shell script of ours that no terminal can signal; `file` is its descriptor 3. Answers its pid."""
    return os.posix_spawn(
        SHELL,
        [SHELL, "-c", script],
        {},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, file, 3),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULTED,
    )
