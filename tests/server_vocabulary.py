"""The words that the server's tests are written in: a real server, what is left of it, a client that obeys nobody."""

import contextlib
import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from rakefarm.wire import codec
from rakefarm.wire.codec import U64
from rakefarm.wire.messages import (
    PROTOCOL_NAME,
    PROTOCOL_VERSIONS,
    STREAMED,
    Ack,
    Decline,
    Delivered,
    Error,
    Execute,
    File,
    Hello,
    Input,
    Message,
    MessageType,
    NeedFiles,
    Output,
    Progress,
    Quote,
    QuoteRequest,
    Result,
    Stderr,
    Stdout,
    Supplied,
    Task,
    Variable,
    Wait,
    Welcome,
)

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 30.0
POLL_S = 0.01
Found = TypeVar("Found")


def wait_until(condition: Callable[[], Found], what: str = "", deadline_s: float = DEADLINE_S) -> Found:
    """Poll until `condition` answers something true; answers that. Fails after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came to be: {what or condition}"
        time.sleep(POLL_S)
    return found


def start_process(run: Callable[[], object]) -> int:
    """Fork a process that runs `run` and ends; answers its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test runner's watchdog is a thread
        pid = os.fork()
    if not pid:
        try:
            run()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


@contextlib.contextmanager
def other_process(run: Callable[[], object]) -> Iterator[int]:
    """A process that first runs `run` and then stays until it is killed, at the latest with the context."""
    reader, writer = os.pipe()

    def run_and_stay() -> None:
        run()
        os.write(writer, b"r")
        signal.pause()

    pid = start_process(run_and_stay)
    os.close(writer)
    try:
        with open(reader, "rb") as pipe:
            assert pipe.read(1) == b"r", "it ended before it was ready"
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def busy_process(run: Callable[[], object]) -> Iterator[int]:
    """A process that runs `run`, which may be endless, for as long as the context lasts."""
    pid = start_process(run)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def processes_in(place: Path | str) -> list[int]:
    """Every process with `place` in its environment, or working below it, whoever its parent is."""
    marker = os.fsencode(str(place))
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                environment = Path(f"/proc/{name}/environ").read_bytes()
                where = os.fsencode(os.readlink(f"/proc/{name}/cwd"))
                if marker in environment or where.startswith(marker):
                    found.append(int(name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- a server -------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A real server, in a process of its own."""

    process: subprocess.Popen[bytes]
    scratch: Path
    log_path: Path
    address: str = ""
    host: str = ""
    port: int = 0
    line: str = ""
    """What it said when it was ready."""
    _family: set[tuple[int, float]] = field(default_factory=set)

    def log(self) -> str:
        """What it has said on standard error."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_for_log(self, text: str, after: int = 0) -> None:
        """Until `text` stands in the log, behind its first `after` characters."""
        wait_until(lambda: text in self.log()[after:], f"{text!r} in the log")

    def tree(self) -> list[psutil.Process]:
        """The listener and all that came of it."""
        try:
            listener = psutil.Process(self.process.pid)
            return [listener, *listener.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def worker_pids(self) -> list[int]:
        """The workers, which are the listener's children."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        return sorted(child.pid for child in children if is_alive(child.pid))

    def memory_bytes(self) -> int:
        """What all its processes hold in memory."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def sandboxes(self) -> list[Path]:
        """The directories of actions that are there now."""
        return sorted(self.scratch.glob("rakefarm-*/server-*/worker-*/executor-*/box"))

    def note_family(self) -> None:
        """Remember who is there now: all of them must be gone in the end."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                self._family.add((process.pid, process.create_time()))

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(DEADLINE_S)

    def end(self) -> None:
        """End it, if it has not ended, and wait until nothing of it is left."""
        self.stop()
        self.wait_gone()

    def stop(self) -> None:
        """End it, if it has not ended."""
        self.note_family()
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        try:
            self.wait()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()

    def wait_gone(self) -> None:
        """Wait until nothing of it is left; fails when something stays."""
        wait_until(lambda: not self._left(), "all processes of the server's tree gone")
        wait_until(lambda: not processes_in(self.scratch), "all processes in the server's directory gone")

    def _left(self) -> list[int]:
        left = []
        for pid, created in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).create_time() == created and is_alive(pid):
                    left.append(pid)
        return left

    def directories(self) -> list[Path]:
        """What it has made below its TMPDIR."""
        return sorted(self.scratch.glob("rakefarm-*"))


def server_environment(scratch: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a server whose every file is below `scratch`, or where `env` says."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAKEFARM_")},
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(scratch / "tmp"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "XDG_CONFIG_HOME": str(scratch / "config"),
        # Most tests look at their commands from outside, and have them wait at a gate there; tests/abuse has the rest.
        "RAKEFARM_ISOLATION": "process",
        **(env or {}),
    }


def open_to_commands(directory: Path) -> None:
    """Where root runs the tests, commands have another uid, which may then write into `directory`."""
    if os.geteuid() == 0:
        directory.chmod(0o777)
        for parent in directory.parents:
            mode = parent.stat().st_mode
            if not mode & 0o001:
                parent.chmod(mode | 0o011)


def file_for_commands(path: Path) -> Path:
    """A file that the commands of all workers may add to, whatever their uids."""
    path.touch()
    path.chmod(0o666)
    return path


SERVER = (sys.executable, "-m", "rakefarm.server")


def open_server(scratch: Path, *options: str, env: Mapping[str, str] | None = None) -> Server:
    """Start a server and wait until it listens. `end` it."""
    variables = server_environment(scratch, env)
    Path(variables["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    open_to_commands(Path(variables["TMPDIR"]))
    log_path = scratch / "log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*SERVER, "--until-eof", "--verbose", "--port", "0", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=variables,
        )
    server = Server(process, Path(variables["TMPDIR"]).absolute(), log_path)
    assert process.stdout
    readable = select.select([process.stdout], [], [], DEADLINE_S)[0]
    server.line = process.stdout.readline().decode() if readable else ""
    if not server.line.startswith("listening on "):
        server.end()
        raise AssertionError(f"the server did not start: {server.line!r} {server.log()}")
    server.address = server.line.split()[2]
    host, _, port = server.address.rpartition(":")
    if host != "unix":
        server.host, server.port = host.strip("[]"), int(port)
    server.note_family()
    return server


def run_server_command(scratch: Path, *options: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """A server that should refuse to start: its exit status, standard output and standard error."""
    variables = server_environment(scratch, env)
    (scratch / "tmp").mkdir(exist_ok=True)
    open_to_commands(scratch / "tmp")
    done = subprocess.run(
        [*SERVER, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=variables,
        timeout=DEADLINE_S,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


# --- a client that may say anything ---------------------------------------------------------------------


def encode(message: Message, body: bytes | None = None) -> bytes:
    """A message's bytes, with its body."""
    return codec.encode(message, None if body is None else len(body)) + (body or b"")


def hello(**changes: object) -> Hello:
    """An introduction that a server accepts, but for the changes."""
    fields: dict[str, object] = {
        "protocol": PROTOCOL_NAME,
        "versions": PROTOCOL_VERSIONS,
        "capabilities": (),
        "nonce": bytes(32),
        "client": "test",
        "software": "0",
    }
    return Hello(**{**fields, **changes})  # type: ignore[arg-type]


def an_input(path: bytes, content: bytes = b"", **changes: object) -> Input:
    """A manifest's entry for `content`, but for the changes."""
    fields: dict[str, object] = {
        "path": path,
        "alias": b"",
        "mode": 0o644,
        "mtime_ns": 1_700_000_000_000_000_000,
        "size": len(content),
        "sha256": hashlib.sha256(content).digest(),
    }
    return Input(**{**fields, **changes})  # type: ignore[arg-type]


def a_task(**changes: object) -> Task:
    """What is to be priced, but for the changes."""
    fields: dict[str, object] = {"kind": "other", "needs": (), "input_bytes": 0, "work_s": 0.0, "memory_bytes": 0}
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


def execute(command: bytes = b"true", *manifest: Input, **changes: object) -> Execute:
    """A request to run `command`, but for the changes, also those of its task. `produces` makes the outputs declared."""
    of_task = {name: changes.pop(name) for name in Task.__struct_fields__ if name in changes}
    fields: dict[str, object] = {
        "lease": 0,
        "start": 0,
        "task": a_task(**of_task),
        "command": command,
        "manifest": manifest,
        "declared": int("produces" in changes),
        "produces": (),
        "timeout_s": 0.0,
        "environment": (),
        "label": "test",
        "repeatable": 0,
    }
    return Execute(**{**fields, **changes})  # type: ignore[arg-type]


A_QUOTE = QuoteRequest(a_task(kind="compile", input_bytes=1000))
A_WAIT = Wait(A_QUOTE.task)


@dataclass
class Answer:
    """All that came of an action."""

    result: Result | None = None
    declined: Decline | None = None
    error: Error | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    outputs: dict[bytes, bytes] = field(default_factory=dict)
    modes: dict[bytes, int] = field(default_factory=dict)
    delivered: Delivered | None = None
    needed: tuple[int, ...] = ()
    phases: list[str] = field(default_factory=list)


class Client:
    """A connection without rules: sends any bytes at any time, and reads what comes."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), DEADLINE_S)
        self.welcome: Welcome | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave."""
        self.socket.close()

    def introduce(self) -> "Client":
        """HELLO and WELCOME."""
        self.send(hello())
        welcome = self.read()
        assert isinstance(welcome, Welcome), welcome
        self.welcome = welcome
        return self

    def send(self, message: Message, body: bytes | None = None) -> None:
        """A whole message."""
        self.send_bytes(encode(message, body))

    def send_bytes(self, data: bytes) -> None:
        """Anything. That the server has closed the connection meanwhile is no error."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            self.socket.sendall(data)

    def _take(self, count: int) -> bytes | None:
        parts = []
        while count:
            try:
                data = self.socket.recv(min(count, 1 << 20))
            except ConnectionResetError:
                return None
            if not data:
                return None
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def read(self) -> Message | None:
        """The next message without its body; None when the server has closed the connection."""
        return self.read_streamed()[0]

    def read_streamed(self) -> tuple[Message | None, bytes]:
        """The next message and its body."""
        head = self._take(8)
        if head is None:
            return None, b""
        number = MessageType(U64.unpack(head)[0])
        payloads = b"".join(self._take_payload() for _ in range(codec.PAYLOAD_COUNTS[number]))
        body = self._take_payload()[8:] if number in STREAMED else b""
        return codec.decode(number, payloads), body

    def _take_payload(self) -> bytes:
        head = self._take(8)
        assert head is not None, "the connection was closed within a message"
        data = self._take(U64.unpack(head)[0])
        assert data is not None, "the connection was closed within a message"
        return head + data

    def wait_closed(self) -> Error | None:
        """Until the server has closed the connection; answers its ERROR, if there was one."""
        error = None
        while (message := self.read()) is not None:
            if isinstance(message, Error):
                error = message
        return error

    def wait_phase(self, phase: str) -> None:
        """Until PROGRESS tells of this phase."""
        while True:
            message = self.read()
            assert isinstance(message, Progress), message
            if message.phase == phase:
                return

    def ask(self, request: QuoteRequest = A_QUOTE) -> Quote | Decline:
        """A quote."""
        self.send(request)
        answer = self.read()
        assert isinstance(answer, Quote | Decline), answer
        return answer

    def wait_for_slot(self, request: Wait = A_WAIT) -> Quote | Decline:
        """The answer to WAIT, however long it takes."""
        self.send(request)
        return self.finish_waiting()

    def finish_waiting(self) -> Quote | Decline:
        """The answer to a WAIT that was sent."""
        while isinstance(answer := self.read(), Progress):
            assert answer.phase == "waiting", answer
        assert isinstance(answer, Quote | Decline), answer
        return answer

    def run(self, command: bytes, inputs: Mapping[bytes, bytes] | None = None, **changes: object) -> Answer:
        """A whole action, as a good client does it."""
        files = list((inputs or {}).items())
        self.send(execute(command, *(an_input(path, content) for path, content in files), **changes))
        return self.finish([content for _, content in files])

    def finish(self, contents: list[bytes] | None = None) -> Answer:
        """The rest of an action whose EXECUTE was sent."""
        answer = Answer()
        while True:
            message, body = self.read_streamed()
            match message:
                case NeedFiles(indexes):
                    answer.needed = indexes
                    files = [encode(File(index), (contents or [])[index]) for index in indexes]
                    self.send_bytes(b"".join(files) + encode(Supplied()))
                case Progress(phase):
                    answer.phases.append(phase)
                case Result():
                    answer.result = message
                case Stdout():
                    answer.stdout = body
                case Stderr():
                    answer.stderr = body
                case Output(path, mode, sha256):
                    assert hashlib.sha256(body).digest() == sha256
                    answer.outputs[path], answer.modes[path] = body, mode
                case Decline():
                    answer.declined = message
                    return answer
                case Error():
                    answer.error = message
                    return answer
                case Delivered():
                    answer.delivered = message
                    self.send(Ack())
                    return answer
                case _:
                    raise AssertionError(f"{message} came")


StartServer = Callable[..., Server]
"""Of the fixture `start_server`."""
Connect = Callable[[Server], Client]
"""Of the fixture `connect`."""


class Gate:
    """Holds a command until the test opens it, and tells when the command has come to it."""

    def __init__(self, directory: Path, name: str = "gate") -> None:
        open_to_commands(directory)
        self._reached, self._opened = directory / f"{name}-reached", directory / f"{name}-opened"
        self.command = f": > '{self._reached}'; while [ ! -e '{self._opened}' ]; do sleep 0.02; done".encode()
        """Shell text that waits at the gate."""

    @property
    def reached(self) -> bool:
        """Whether a command has come to it."""
        return self._reached.exists()

    def wait_reached(self) -> None:
        """Until a command has come to it."""
        wait_until(lambda: self.reached, "a command at the gate")

    def open(self) -> None:
        """Let the command go on."""
        self._opened.touch()


def variables(**values: str) -> tuple[Variable, ...]:
    """An environment as EXECUTE has it."""
    return tuple(Variable(name.encode(), value.encode()) for name, value in values.items())
