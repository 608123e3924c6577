"""What each level of isolation stops on this machine: a server is started at each, and really attacked.

The attacks come over a connection like any client's, as ordinary actions. Nothing outside a temporary directory is
touched but what the attacks are about: a file in /tmp, sockets on loopback, processes that were started for it.
"""

import contextlib
import hashlib
import os
import secrets
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct, structs

from rakefarm import process
from rakefarm.levels import LEVELS, rank
from rakefarm.server.attacks import ATTACKS, Answer, Attack, Scene, command_of
from rakefarm.server.sandbox import choose_root, remove_tree
from rakefarm.transport import Lost, Transport
from rakefarm.wire import Connection, Role
from rakefarm.wire.messages import (
    PROTOCOL_NAME,
    PROTOCOL_VERSIONS,
    Ack,
    Decline,
    Delivered,
    Execute,
    File,
    Hello,
    Input,
    NeedFiles,
    Output,
    Result,
    Stderr,
    Stdout,
    Supplied,
    Task,
    Welcome,
)

LIMITS = """\
[limits]
memory = "256M"
processes = 200
file_size = "32M"
box_size = "64M"
box_files = 5000
stdout_size = "1M"
stderr_size = "1M"
"""
SILENCE_S = 60.0
DIES_S = 1.0
HEARD_S = 0.3
"""How long a service waits for what a command may have sent it."""


class SelftestFailed(Exception):
    """The attacks can't be made; the text says why."""


class LevelReport(Struct, frozen=True):
    """What came of it at one level: which attacks succeeded, by name, what was missing; or why there was no such
    server."""

    level: str
    problem: str = ""
    missing: tuple[str, ...] = ()
    succeeded: Mapping[str, bool] = {}

    def stops(self, attack: Attack) -> bool:
        """Whether it must stop this attack here: a level stops what it is made for, as far as nothing is missing."""
        return rank(self.level) >= rank(attack.stopped_from)


def attack_levels(
    levels: Sequence[str] = tuple(LEVELS),
    attacks: Sequence[Attack] = ATTACKS,
    tell: Callable[[str], object] = lambda _: None,
) -> list[LevelReport]:
    """Attack a server at each of the levels; `tell` what is done meanwhile. Raises SelftestFailed."""
    place = tempfile.mkdtemp(prefix="rakefarm-selftest-", dir=choose_root("", ""))
    try:
        os.chmod(place, 0o711)  # nosec B103 # other uids pass through, and can't look
        program = _compile(place)
        return [_attack_level(level, attacks, program, place, tell) for level in levels]
    finally:
        remove_tree(place)


def _compile(place: str) -> bytes:
    """The attacking program."""
    source, target = os.path.join(os.path.dirname(__file__), "attack.c"), os.path.join(place, "attack")
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    words = ["cc", "-O1", "-o", target, source]
    done = process.run(" ".join(map(_quote, words)).encode(), {b"PATH": os.fsencode(path)})
    error = b"".join(done.stderr.pieces()).decode("utf-8", "replace").strip()
    done.close()
    if done.ending != process.Exited(0):
        raise SelftestFailed(f"the attacks need a C compiler, and this one failed: {error[-300:] or 'cc'}")
    with open(target, "rb") as file:
        return file.read()


def _quote(word: str) -> str:
    import shlex

    return shlex.quote(word)


def _attack_level(
    level: str, attacks: Sequence[Attack], program: bytes, place: str, tell: Callable[[str], object]
) -> LevelReport:
    tell(f"{level}: a server starts")
    here = os.path.join(place, level)
    os.mkdir(here)
    os.chmod(here, 0o711)  # nosec B103 # the same
    canary = f"canary-{secrets.token_hex(16)}"
    with _server(level, here, canary) as (address, problem):
        if address is None:
            return LevelReport(level, problem)
        with _Client(address, program) as client, _Client(address, program) as other, contextlib.ExitStack() as stack:
            uid = int(client.run("id -u").stdout)
            scene = stack.enter_context(_scene(here, canary, uid))
            other.begin(f"echo {scene.needle} > private; touch begun; sleep 600")
            succeeded = {}
            for number, attack in enumerate(attacks, 1):
                tell(f"{level}: attack {number} of {len(attacks)}: {attack.name}")
                scene = structs.replace(scene, boxes=_boxes(here))
                answer = client.run(command_of(attack, scene), attack.timeout_s)
                succeeded[attack.name] = attack.succeeded(scene, answer)
            return LevelReport(level, "", client.welcome.missing, succeeded)


def _boxes(here: str) -> tuple[str, ...]:
    """Where other actions keep what is theirs, as far as it can be found out from outside."""
    found = []
    for directory, _, names in os.walk(os.path.join(here, "tmp")):
        found += [os.path.join(directory, name) for name in names if name == "private"]
    return tuple(found)


@contextlib.contextmanager
def _server(level: str, here: str, canary: str) -> Iterator[tuple[tuple[str, int] | None, str]]:
    """A server at this level: its address, or why there is none."""
    for name in ("tmp", "cache", "home"):
        os.mkdir(os.path.join(here, name))
    os.chmod(os.path.join(here, "tmp"), 0o711)  # nosec B103 # the same
    config, log = os.path.join(here, "server.toml"), os.path.join(here, "log")
    with open(config, "w", encoding="ascii") as file:
        file.write(LIMITS)
    words = [sys.executable, "-m", "rakefarm.server", "--until-eof", "--address", "127.0.0.1", "--port", "0"]
    words += ["--slots", "2", "--workers", "2", "--isolation", level, "--config", config]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TMPDIR": os.path.join(here, "tmp"),
        "XDG_CACHE_HOME": os.path.join(here, "cache"),
        "HOME": os.path.join(here, "home"),
        "RAKEFARM_CANARY": canary,
    }
    server = process.start_background(words, environment, error=log)
    assert server.stdout is not None and server.stdin is not None
    try:
        line = server.stdout.readline().decode("utf-8", "replace")
        if line.startswith("listening on "):
            host, _, port = line.split()[2].rpartition(":")
            yield (host.strip("[]"), int(port)), ""
        else:
            with open(log, encoding="utf-8", errors="replace") as file:
                yield None, file.read().strip().rpartition("\n")[2].removeprefix("rakeserver: error: ")
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


@contextlib.contextmanager
def _scene(here: str, canary: str, uid: int) -> Iterator[Scene]:
    """Everything that is there to attack, for as long as the context lasts."""
    needle, mark = f"needle-{secrets.token_hex(16)}", f"rf{secrets.token_hex(5)}"
    outside = os.path.join(here, "outside")
    os.makedirs(os.path.join(outside, "home", ".ssh"))
    for directory in (outside, f"{outside}/home", f"{outside}/home/.ssh"):
        os.chmod(directory, 0o777)  # nosec B103 # there to be attacked
    secret = f"{outside}/home/.ssh/id"
    with open(secret, "w", encoding="ascii") as file:
        file.write(needle + "\n")
        os.fchmod(file.fileno(), 0o644)
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        abstract.bind(f"\0{mark}")
        pathname = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        pathname.bind(f"{outside}/socket")
        os.chmod(f"{outside}/socket", 0o777)  # nosec B103 # the same
        stranger = _start_stranger(uid)
        stack.callback(_end, stranger)
        stack.callback(_end_daemons, mark)
        yield Scene(
            outside=outside,
            needle=needle,
            canary=canary,
            mark=mark,
            tcp_port=tcp.getsockname()[1],
            udp_port=udp.getsockname()[1],
            abstract=mark,
            pathname=f"{outside}/socket",
            stranger=stranger,
            boxes=(),
            heard=lambda: _heard([tcp, udp, abstract, pathname]),
            stranger_lives=lambda: _lives(stranger),
            daemon_lives=lambda: bool(_daemons(mark)),
        )


def _heard(services: Sequence[socket.socket]) -> bool:
    """Whether a service was reached; what it was sent is taken."""
    poller = select.poll()
    for service in services:
        poller.register(service, select.POLLIN)
    reached = {descriptor for descriptor, _ in poller.poll(HEARD_S * 1000)}
    for service in services:
        if service.fileno() in reached:
            if service.type == socket.SOCK_STREAM:
                service.accept()[0].close()
            else:
                service.recv(64)
    return bool(reached)


def _start_stranger(uid: int) -> int:
    """A process of the commands' user that has nothing to do with them."""
    pid = os.fork()
    if not pid:
        try:
            if os.geteuid() == 0 and uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pause()
        finally:
            os._exit(1)
    return pid


def _lives(child: int) -> bool:
    """Whether it is still there a moment later: a signal takes its time."""
    descriptor = os.pidfd_open(child)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return not poller.poll(DIES_S * 1000)
    finally:
        os.close(descriptor)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _daemons(mark: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal():
                with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as file:
                    if file.read().strip() == mark:
                        found.append(int(name))
    return found


def _end_daemons(mark: str) -> None:
    for pid in _daemons(mark):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


class _Client:
    """A client that has its attacks run, one after another."""

    def __init__(self, address: tuple[str, int], program: bytes) -> None:
        self._address = address
        self._program = program
        self._open()

    def __enter__(self) -> "_Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def _open(self) -> None:
        sock = socket.create_connection(self._address)
        sock.setblocking(True)
        self._transport = Transport(sock, Connection(Role.CLIENT))
        self._transport.set_timeout(SILENCE_S)
        self._transport.send(Hello(PROTOCOL_NAME, PROTOCOL_VERSIONS, (), bytes(32), "selftest", "selftest"))
        welcome = self._transport.receive()
        if not isinstance(welcome, Welcome):
            raise SelftestFailed(f"the server did not let its own test in: {welcome!r}")
        self.welcome = welcome

    def begin(self, command: str, timeout_s: float = 0.0) -> None:
        """Have `command` run beside the attacking program."""
        digest = hashlib.sha256(self._program).digest()
        entry = Input(b"attack", b"", 0o755, 10**18, len(self._program), digest)
        task = Task("other", (), entry.size, 0.0, 0)
        self._transport.send(Execute(0, 0, task, command.encode(), (entry,), 1, (), timeout_s, (), "selftest", 0))

    def run(self, command: str, timeout_s: float = 0.0) -> Answer:
        """Run `command` to its end."""
        self.begin(command, timeout_s)
        result = Answer("lost", 0, b"", b"", "")
        streams: dict[type, list[bytes]] = {Stdout: [], Stderr: []}
        while True:
            try:
                message = self._transport.receive()
            except Lost:
                message = None
            match message:
                case NeedFiles(indexes):
                    for index in indexes:
                        self._transport.gather(File(index), self._program)
                    self._transport.send(Supplied())
                case Result():
                    result = Answer(message.outcome, message.status, b"", b"", message.detail)
                case Stdout() | Stderr():
                    self._transport.receive_body(streams[type(message)].append)
                case Output():
                    self._transport.receive_body(lambda _: None)
                case Decline(reason, text):
                    return Answer("declined", 0, b"", b"", f"{reason}: {text}")
                case Delivered():
                    self._transport.send(Ack())
                    out, err = (b"".join(pieces) for pieces in streams.values())
                    return structs.replace(result, stdout=out, stderr=err)
                case None:
                    self._open()
                    return result
