"""The ways to have a compiler called: here, through `rakefarm cc`, distcc with and without pump, ccache, sccache.

Each is a context that starts what the way needs and ends it again, by process id. Traps of the peers are seen to:
distcc takes `localhost` for never remote, so hosts are numbers; its falling back to compiling here is switched off;
Debian's pump is tried, and left out where it works on as plain distcc.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from farm import ENVIRONMENT

LOOPBACK = "127.0.0.1"


class Absent(Exception):
    """A way that can't be had here; the text says why."""


def _none() -> list[int]:
    return []


def _nothing() -> None:
    pass


def _none_strayed() -> int:
    return 0


@dataclass(frozen=True)
class Way:
    """What stands before a compiler, and with which variables. `daemons` finds the processes of the client's side that
    work for it besides what make starts; `reset` is called before each build; `around` are words before `make`."""

    name: str
    launcher: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    daemons: Callable[[], list[int]] = _none
    reset: Callable[[], None] = _nothing
    around: tuple[str, ...] = ()
    strays: Callable[[], int] = _none_strayed
    """How many calls have run here so far that should have run elsewhere."""


PLAIN = Way("local")


def free_port(address: str = LOOPBACK) -> int:
    """One that nobody listens on."""
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def process(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """A process in a group of its own, all of which is ended with the context; answers its id."""
    started = subprocess.Popen(
        words, env={**ENVIRONMENT, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield started.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(5)
        started.wait()


def wait_listening(address: str, port: int, around: Sequence[str] = ()) -> None:
    """Until somebody listens there, as seen from where `around` leads to. Raises Absent."""
    code = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()"
    deadline = time.monotonic() + 20
    while subprocess.run([*around, sys.executable, "-c", code, address, str(port)], capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise Absent(f"nothing listens on {address}:{port}")


# --- servers --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def rakeserver(directory: str, slots: int, around: Sequence[str] = (), address: str = LOOPBACK) -> Iterator[str]:
    """One of ours; answers its HOST:PORT. Away from loopback it has no key, as the peers have none."""
    words = [*around, sys.executable, "-m", "rakefarm.server", "--until-eof", "--port", "0", "--slots", str(slots)]
    if address != LOOPBACK:
        words += ["--address", address, "--insecure"]
    cache = os.path.join(directory, f"store-{time.monotonic_ns()}")
    server = subprocess.Popen(
        words, env={**ENVIRONMENT, "XDG_CACHE_HOME": cache}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdin and server.stdout
    try:
        yield server.stdout.readline().split()[2]
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


@contextlib.contextmanager
def distccd(slots: int, around: Sequence[str] = (), address: str = LOOPBACK) -> Iterator[str]:
    """A distcc daemon; answers its HOST:PORT/SLOTS. Raises Absent."""
    program = find("distccd")
    port = free_port()
    words = [
        *around, program, "--no-detach", "--daemon", "--listen", address, "--allow", "127.0.0.1", "--allow",
        "10.0.0.0/8", "--port", str(port), "--jobs", str(slots), "--log-level", "critical", "--enable-tcp-insecure",
    ]  # fmt: skip
    with process(words, {"TMPDIR": "/tmp"}):
        wait_listening(address, port, around)
        yield f"{address}:{port}/{slots}"


def find(program: str) -> str:
    """Its path. Raises Absent."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Absent(f"{program} is not installed")
    return path


# --- clients --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def rakefarm(directory: str, hosts: Sequence[str], around: Sequence[str] = (), cache: bool = False) -> Iterator[Way]:
    """Through `rakefarm cc`, with a helper of its own; `cache`: with the result cache."""
    own = os.path.join(directory, f"own-{time.monotonic_ns()}")
    environment = {
        "RAKEFARM_HOSTS": ",".join(hosts),
        "RAKEFARM_CC_DIRECTORY": os.path.join(own, "run"),
        **({} if cache else {"RAKEFARM_RESULT_CACHE_SIZE": "0"}),
        "XDG_CACHE_HOME": os.path.join(own, "cache"),
        "XDG_STATE_HOME": os.path.join(own, "state"),
        "XDG_CONFIG_HOME": os.path.join(own, "config"),
    }

    def command(*options: str) -> str:
        words = [sys.executable, "-m", "rakefarm.cc", *options]
        return subprocess.run(words, env={**ENVIRONMENT, **environment}, capture_output=True, text=True).stdout

    def helper() -> list[int]:
        told = command("--statistics")
        return [int(told.split("process ")[1].split()[0])] if told else []  # there is none before the first call

    def strays() -> int:
        found = re.search(r"(\d+) run here", command("--statistics"))
        return int(found[1]) if found else 0

    if not all(host.startswith(LOOPBACK) for host in hosts):
        os.makedirs(os.path.join(own, "config", "rakefarm"))
        with open(os.path.join(own, "config", "rakefarm", "client.toml"), "w", encoding="ascii") as file:
            file.write("insecure = true\n")  # as the peers

    launcher = command("--launcher").strip()
    try:
        yield Way("rakefarm", launcher, environment, helper, around=tuple(around), strays=strays)
    finally:
        command("--stop")


@contextlib.contextmanager
def distcc(directory: str, hosts: Sequence[str], around: Sequence[str] = ()) -> Iterator[Way]:
    """Through distcc. Raises Absent."""
    find("distcc")
    own = os.path.join(directory, f"distcc-{time.monotonic_ns()}")
    os.mkdir(own)
    environment = {"DISTCC_HOSTS": " ".join(hosts), "DISTCC_FALLBACK": "0", "DISTCC_DIR": own}
    yield Way("distcc", "distcc", environment, around=tuple(around))


@contextlib.contextmanager
def pump(directory: str, hosts: Sequence[str], around: Sequence[str] = ()) -> Iterator[Way]:
    """Through distcc with its include server, which it starts for each build. Raises Absent where it is broken:
    it then goes on as plain distcc without a word."""
    try:
        program = find("distcc-pump")
    except Absent:
        program = find("pump")
    with distcc(directory, [f"{host},cpp,lzo" for host in hosts], around) as plain:
        told = subprocess.run(
            [program, "sh", "-c", 'echo "[$INCLUDE_SERVER_PORT]"'], env={**ENVIRONMENT, **plain.environment},
            capture_output=True, text=True,
        )  # fmt: skip
        if "[/" not in told.stdout:
            first = (told.stderr.strip().splitlines() or told.stdout.strip().splitlines() or ["it says nothing"])[-1]
            raise Absent(f"pump does not start its include server: {first}")
        yield Way("pump", "distcc", plain.environment, around=(*around, program))


@contextlib.contextmanager
def ccache(directory: str, cold: bool = False) -> Iterator[Way]:
    """Through ccache; `cold`: with an empty cache each time. Raises Absent."""
    find("ccache")
    own = os.path.join(directory, f"ccache-{time.monotonic_ns()}")

    def forget() -> None:
        shutil.rmtree(own, ignore_errors=True)

    name = "ccache, cold" if cold else "ccache"
    yield Way(name, "ccache", {"CCACHE_DIR": own}, reset=forget if cold else _nothing)


@contextlib.contextmanager
def sccache(directory: str) -> Iterator[Way]:
    """Through sccache with its server, and a cache on disk. Raises Absent."""
    program = find("sccache")
    environment = {
        "SCCACHE_DIR": os.path.join(directory, "sccache"),
        "SCCACHE_SERVER_PORT": str(free_port()),
        "SCCACHE_IDLE_TIMEOUT": "0",
        "SCCACHE_CONF": "/dev/null",
    }
    with process([program], {**environment, "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"}) as pid:
        wait_listening(LOOPBACK, int(environment["SCCACHE_SERVER_PORT"]))
        yield Way("sccache", program, environment, lambda: [pid])
