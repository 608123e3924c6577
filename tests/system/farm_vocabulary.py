"""The words that the tests of whole builds are written in: a project to build, and servers of `server_vocabulary`."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import server_vocabulary
from server_vocabulary import ROOT, Server, is_alive, open_server, open_to_commands, processes_in, wait_until

CLIENT = (sys.executable, "-m", "rakefarm.client")
BUILD_S = 60.0
EXAMPLES = ROOT / "examples"
SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"
"""A program that keeps a core busy for as long as whoever started it lives: a run that is cut short leaves none."""

Event = dict[str, object]


@dataclass(frozen=True)
class Built:
    """How a build ended."""

    status: int
    stdout: bytes
    stderr: bytes

    def says(self, text: str) -> bool:
        """Whether `text` stands in one line of standard error."""
        return any(text.encode() in line for line in self.stderr.splitlines())

    def events(self) -> list[Event]:
        """What `--json` wrote."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class Client:
    """A client that runs: wait for what it tells, send it a signal, see how it ends."""

    def __init__(self, process: subprocess.Popen[bytes], told: Path) -> None:
        self.process = process
        self._told = told

    def events(self) -> list[Event]:
        """What it has told so far."""
        if not self._told.exists():
            return []
        return [json.loads(line) for line in self._told.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]

    def wait_for(self, name: str, count: int = 1, **values: object) -> list[Event]:
        """Until `count` events of this name, with these values, have been told."""

        def found() -> list[Event]:
            assert self.process.poll() is None or self.matching(name, values), self.process.communicate()
            matching = self.matching(name, values)
            return matching if len(matching) >= count else []

        return wait_until(found, f"{count} × {name} {values}")

    def matching(self, name: str, values: Mapping[str, object]) -> list[Event]:
        return [event for event in self.events() if event["event"] == name and values.items() <= event.items()]

    def end(self) -> Built:
        """Wait for its end."""
        try:
            stdout, stderr = self.process.communicate(timeout=BUILD_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the build hangs: {self.process.communicate()}") from None
        assert b"Traceback" not in stderr, stderr.decode(errors="replace")
        assert self.process.returncode != 70, stderr
        return Built(self.process.returncode, stdout, stderr)


@dataclass
class Project:
    """A working directory with a Rakefile, and the client to build it. Everything of its is below `scratch`."""

    scratch: Path
    path: Path = field(init=False)
    tmp: Path = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.scratch / "project"
        self.tmp = self.scratch / "client-tmp"
        for directory in (self.path, self.tmp):
            directory.mkdir(parents=True)
        open_to_commands(self.scratch)  # where they leave marks

    # --- files --------------------------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes = b"", mode: int | None = None) -> Path:
        """A file of the project, its directories made."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(content) if isinstance(content, str) else content)
        if mode is not None:
            path.chmod(mode)
        return path

    def rakefile(self, *lines: str) -> None:
        """The Rakefile: a line that ends with a colon opens a set, one that begins with > is for the action above."""
        indented = []
        for line in lines:
            if line.endswith(":"):
                indented.append(line)
            else:
                indented.append("\t\t" + line[1:].lstrip() if line.startswith(">") else "\t" + line)
        self.write("Rakefile", "\n".join(indented) + "\n")

    def copy_example(self, name: str) -> None:
        """The files of an example, without what a build there has left."""
        for source in sorted((EXAMPLES / name).rglob("*")):
            if source.suffix in (".c", ".h", ".csv") or source.name == "Rakefile":
                self.write(str(source.relative_to(EXAMPLES / name)), source.read_bytes())

    def read(self, name: str) -> bytes:
        """A file's content."""
        return (self.path / name).read_bytes()

    def names(self) -> set[str]:
        """All files, by their relative names."""
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir()}

    def made(self) -> set[str]:
        """All files but the Rakefile."""
        return self.names() - {"Rakefile"}

    # --- building -----------------------------------------------------------------------------------------

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The client's variables."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "HOME": str(self.scratch / "home"),
            "TMPDIR": str(self.tmp),
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
            "XDG_CONFIG_HOME": str(self.scratch / "config"),
            "RAKEFARM_ISOLATION": "process",
            **(env or {}),
        }

    def start(
        self,
        *options: str,
        hosts: Iterable[Server | str] = (),
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> Client:
        """Start a build on these hosts, its events in a file."""
        told = self.scratch / "events"
        told.unlink(missing_ok=True)
        return self._start(prefix, [*_on(hosts), f"--json={told}", *options], env, told)

    def build(
        self,
        *options: str,
        hosts: Iterable[Server | str] = (),
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> Built:
        """Build on these hosts, or where the Rakefile says."""
        return self._start(prefix, [*_on(hosts), *options], env, self.scratch / "no-events").end()

    def _start(
        self, prefix: Sequence[str], options: Sequence[str], env: Mapping[str, str] | None, told: Path
    ) -> Client:
        process = subprocess.Popen(
            [*prefix, *CLIENT, *options],
            cwd=self.path,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return Client(process, told)

    def check_nothing_is_left(self) -> None:
        """No process of a client or of its embedded farm, no temporary file."""
        wait_until(lambda: not self.processes(), "all of the client's processes gone", 10.0)
        assert not list(self.path.rglob(".rakefarm-*"))
        assert not list(self.tmp.iterdir())

    def processes(self) -> list[int]:
        """Clients, embedded servers, and commands that run here."""
        return [pid for pid in processes_in(self.tmp) + processes_in(self.path) if is_alive(pid)]


def _on(hosts: Iterable[Server | str]) -> list[str]:
    names = [host if isinstance(host, str) else host.address for host in hosts]
    return ["--hosts", ",".join(names)] if names else []


def outputs_of(events: Iterable[Event]) -> set[str]:
    """The files that came back."""
    finished = [event["outputs"] for event in events if event["event"] == "action_finished"]
    return {name for names in finished for name in names}  # type: ignore[attr-defined]


def places_of(events: Iterable[Event]) -> list[str]:
    """Where each action went, in order."""
    return [str(event["host"]) for event in events if event["event"] == "action_placed"]


# --- servers --------------------------------------------------------------------------------------------


def commands_on(server: Server) -> list[int]:
    """The processes of commands that a server runs: only they have a sandbox for their TMPDIR."""
    return [pid for pid in processes_in(f"TMPDIR={server.scratch}/rakefarm-") if is_alive(pid)]


def wait_until_idle(server: Server, deadline_s: float = 10.0) -> None:
    """Until no command runs there and no sandbox is left."""
    wait_until(lambda: not commands_on(server), "all commands gone", deadline_s)
    wait_until(lambda: not server.sandboxes(), "all sandboxes gone", deadline_s)


def open_server_under(prefix: Sequence[str], scratch: Path, *options: str) -> Server:
    """A server that `prefix` (a program that executes its arguments) starts."""
    plain = server_vocabulary.SERVER
    server_vocabulary.SERVER = (*prefix, *plain)
    try:
        return open_server(scratch, *options)
    finally:
        server_vocabulary.SERVER = plain


@contextlib.contextmanager
def on_processor(number: int) -> Iterator[None]:
    """What is started meanwhile runs on this processor only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def with_small_disk(mount_point: Path, size: str) -> list[str]:
    """A prefix: the program sees an empty disk of this size at `mount_point`; nobody else does."""
    unshare = ["unshare", "-m"] if not os.geteuid() else ["unshare", "-Urm"]
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
    return [*unshare, "sh", "-c", script, "sh", size, str(mount_point)]


def small_disks_work() -> bool:
    """Whether this machine lets us mount in a namespace of our own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*with_small_disk(Path("/mnt"), "1m"), "true"], capture_output=True).returncode == 0


def without_privilege() -> list[str]:
    """A prefix: permission bits hold for the program, also when root starts it."""
    if os.geteuid():
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
