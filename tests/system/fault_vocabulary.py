"""The words that the tests of random faults are written in: a farm with key and isolation, a build that is going on,
cables to cut, disks to fill, clocks to move; and what must hold afterwards."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import server_vocabulary
from farm_vocabulary import Built, Client, Project
from secure_vocabulary import SecureClient, make_keys
from server_vocabulary import Server, is_alive, open_server, open_to_commands, processes_in, wait_until

from rakefarm.security.keys import read_keys
from rakefarm.wire.messages import Status, StatusReply

ACTIONS = 8
SLOTS = 2
LONGEST_S = 0.9
"""A fault comes within this time after the first action was placed; a build takes about as long."""
SETTLED_S = 30.0
PATIENCE_S = 15.0
"""How long a client waits for a server that is only slow since all of this goes on at once."""


def in_mount_namespace_of(pid: int) -> list[str]:
    """A prefix: the program sees the disks of that process."""
    return ["nsenter", "-t", str(pid), "-m", "--"]


def in_network_of(pid: int) -> list[str]:
    """A prefix: the program has the network of that process."""
    return ["nsenter", "-t", str(pid), "-n", "--"]


class Farm:
    """Servers that ask for a key and confine their commands as far as they can, and a project that knows it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.project = Project(place / "client")
        self.key_file = place / "keys"
        make_keys(self.key_file, "zoe")
        settings = self.project.scratch / "config" / "rakefarm" / "client.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(f"connect_s = {PATIENCE_S}\nquote_s = {PATIENCE_S}\n")
        self.servers: list[Server] = []
        self._numbers = itertools.count()
        self._open_files: dict[int, int] = {}
        self.variables = {"LC_RAKEFARM": str(place)}
        """Reach every command, so that it can be found, whatever confines it."""

    # --- servers ------------------------------------------------------------------------------------------

    def open(
        self,
        *options: str,
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
        settings: str = "",
    ) -> Server:
        """One more server."""
        scratch = self._place / f"server-{next(self._numbers)}"
        scratch.mkdir()
        (scratch / "server.toml").write_text(settings)
        plain = server_vocabulary.SERVER
        server_vocabulary.SERVER = (*prefix, *plain)
        try:
            server = open_server(
                scratch,
                *("--key-file", str(self.key_file), "--config", str(scratch / "server.toml")),
                *("--isolation", "auto", "--slots", str(SLOTS), *options),
                env={
                    "XDG_STATE_HOME": str(self._place / "state"),
                    "LC_RAKEFARM_SERVER": str(self._place),
                    **(env or {}),
                },
            )
        finally:
            server_vocabulary.SERVER = plain
        self.servers.append(server)
        return server

    def note(self) -> None:
        """Remember what each worker has open when it has nothing to do, and has done something."""
        for server in self.servers:
            for pid in server.worker_pids():
                with contextlib.suppress(OSError):
                    self._open_files.setdefault(pid, count_open(pid))

    # --- a build ------------------------------------------------------------------------------------------

    def write_build(self) -> None:
        """Actions that take some 0.2 s, half of them compilations."""
        lines = []
        for number in range(ACTIONS):
            if number % 2:
                self.project.write(f"in{number}.c", f"int f{number}(int x) {{ return x * {number}; }}\n")
                lines += [f"remote-sleep 0.15; cc -O1 -c in{number}.c -o out{number}"]
                lines += [f"> requires in{number}.c", f"> produces out{number}"]
            else:
                self.project.write(f"in{number}", random.Random(number).randbytes(200_000))
                lines += [f"remote-sleep 0.1; cat in{number} in{number} > out{number} && sleep 0.05"]
                lines += [f"> requires in{number}", f"> produces out{number}"]
        self.project.rakefile("a:", *lines)

    def start(self, *options: str, prefix: Sequence[str] = (), env: dict[str, str] | None = None) -> Client:
        """The build, on all servers, until its first action is placed."""
        self.forget_outputs()
        client = self.project.start(
            *("--key-file", str(self.key_file), *options),
            hosts=self.servers,
            env={**self.variables, **(env or {})},
            prefix=prefix,
        )
        client.wait_for("action_placed")
        return client

    def forget_outputs(self) -> None:
        """As before the first build."""
        for path in self.project.path.glob("out*"):
            path.unlink()

    def check_outputs(self, all_of_them: bool = True) -> None:
        """Those that are there are what a build on this machine would have made; and, of a build that went well, all."""
        for number in range(ACTIONS):
            path = self.project.path / f"out{number}"
            if not all_of_them and not path.exists():
                continue
            if number % 2:
                own = self._place / "own.o"
                words = ["cc", "-O1", "-c", f"in{number}.c", "-o", str(own)]
                subprocess.run(words, check=True, cwd=self.project.path)
                assert path.read_bytes() == own.read_bytes()
            else:
                assert path.read_bytes() == self.project.read(f"in{number}") * 2

    def check_ended(self, built: Built) -> None:
        """Right, or failed clearly."""
        if built.status:
            assert built.status in (1, 3), built
            assert built.stderr.strip(), "it says why"
        self.check_outputs(not built.status)

    # --- afterwards ---------------------------------------------------------------------------------------

    def check_nothing_is_left(self) -> None:
        """No command, box, slot, descriptor or temporary file: of the client's, and on each server that lives."""
        wait_until(lambda: not self.commands(), "all commands gone", SETTLED_S)
        self.project.check_nothing_is_left()
        for server in self.servers:
            if server.process.poll() is not None:
                continue
            wait_until(lambda server=server: not server.sandboxes(), "all boxes gone", SETTLED_S)
            wait_until(lambda server=server: not self._opened_more(server), "descriptors given back", SETTLED_S)
            assert not half_written(server)

    def commands(self) -> list[int]:
        """The processes of commands, wherever they run."""
        found = processes_in(f"LC_RAKEFARM={self._place}")
        return [pid for pid in found if is_alive(pid) and not _is_python(pid)]

    def _opened_more(self, server: Server) -> dict[int, tuple[int, int]]:
        more = {}
        for pid in server.worker_pids():
            with contextlib.suppress(psutil.Error):
                before, now = self._open_files.get(pid), count_open(pid)
                if before is not None and now > before:
                    more[pid] = before, now
        return more

    def check_serves(self, server: Server, prefix: Sequence[str] = ()) -> None:
        """A build on this server alone uses every slot of it, and comes out right; then all slots are free."""
        self.forget_outputs()
        built = self.project.build(
            *("--key-file", str(self.key_file), "--fallback", "never"),
            hosts=[server],
            env=self.variables,
            prefix=prefix,
        )
        assert built.status == 0, built.stderr
        self.check_outputs()
        if not prefix:
            with SecureClient(server.host, server.port) as client:
                client.prove(read_keys(str(self.key_file))["zoe"]).send(Status())
                reply = client.read()
                assert isinstance(reply, StatusReply) and reply.occupants == (), reply

    def end(self) -> None:
        """End every server, and see that nothing of any is left but what the killed leave to the next."""
        for server in list(self.servers):
            self.bury(server)
        wait_until(lambda: not self.commands(), "all commands gone", SETTLED_S)

    def bury(self, server: Server) -> None:
        """End one, if it has not ended; what it was killed over, the next that starts there removes."""
        killed = server.process.poll() is not None
        server.end()
        self.servers.remove(server)
        assert "Traceback" not in server.log(), server.log()
        if killed:
            self._sweep(server)
        assert server.directories() == []

    def _sweep(self, server: Server) -> None:
        place = self._place / f"successor-{next(self._numbers)}"
        place.mkdir()
        open_server(place, "--slots", "1", env={"TMPDIR": str(server.scratch)}).end()


def _is_python(pid: int) -> bool:
    """Whether that is a process of the client's, which has the same variables."""
    try:
        return "python" in psutil.Process(pid).name()
    except psutil.Error:
        return True


def count_open(worker: int) -> int:
    """What a worker has open, but for its executors, which it may keep: for each a descriptor of its process, a socket,
    and, where its boxes are a file system of their own, the directory of that."""
    kinds = []
    for name in os.listdir(f"/proc/{worker}/fd"):
        with contextlib.suppress(OSError):
            kinds.append(os.readlink(f"/proc/{worker}/fd/{name}"))
    executors = kinds.count("anon_inode:[pidfd]")
    directories = kinds.count("/")
    return len(kinds) - 2 * executors - directories


def half_written(server: Server) -> list[Path]:
    """Files of the content store that are not whole, and whose writer is gone or has nothing to do."""
    return sorted((server.scratch.parent / "cache").rglob("new/*"))


def executors_of(server: Server) -> list[int]:
    """The processes that run commands: the children of the nurseries, which are the children of the workers."""
    found = []
    with contextlib.suppress(psutil.Error):
        for worker in psutil.Process(server.process.pid).children():
            for nursery in worker.children():
                found += [executor.pid for executor in nursery.children()]
    return found


def kill(pid: int) -> None:
    """At once; that it has just ended is no matter."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def standing_still(processes: Sequence[int]) -> Iterator[None]:
    """These processes are stopped meanwhile."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


# --- cables ---------------------------------------------------------------------------------------------


class Cable:
    """A network of two machines: here, in namespaces of their own, connected by a cable that can be cut."""

    def __init__(self) -> None:
        self._ends = [subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE) for _ in range(2)]
        here = os.readlink("/proc/self/ns/net")
        wait_until(lambda: all(os.readlink(f"/proc/{end.pid}/ns/net") != here for end in self._ends), "namespaces")
        self.here, self.there = (in_network_of(end.pid) for end in self._ends)
        self.address = "10.77.0.2"
        client, server = (str(end.pid) for end in self._ends)
        _run("ip", "link", "add", "cable", "netns", client, "type", "veth", "peer", "name", "cable", "netns", server)
        for side, address in ((self.here, "10.77.0.1/24"), (self.there, "10.77.0.2/24")):
            for words in (
                ("link", "set", "lo", "up"),
                ("link", "set", "cable", "up"),
                ("addr", "add", address, "dev", "cable"),
            ):
                _run(*side, "ip", *words)

    def cut(self) -> None:
        """From now on nothing comes through, and neither end is told."""
        _run(*self.there, "ip", "link", "set", "cable", "down")

    def mend(self) -> None:
        """As it was."""
        _run(*self.there, "ip", "link", "set", "cable", "up")

    def close(self) -> None:
        """The kernel takes the rest."""
        for end in self._ends:
            assert end.stdin is not None
            end.stdin.close()  # which is also what happens when we are killed
            end.wait()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def networks_work() -> bool:
    """Whether this machine lets us make networks."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("nsenter"):
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


# --- disks ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(pid: int, directory: Path) -> Iterator[None]:
    """The disk on which that process sees `directory` is full meanwhile."""
    filler = directory / "filler"
    script = f"cat /dev/zero > '{filler}'"
    subprocess.run([*in_mount_namespace_of(pid), "sh", "-c", script], capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*in_mount_namespace_of(pid), "rm", "-f", str(filler)], capture_output=True)


# --- clocks ---------------------------------------------------------------------------------------------


class Clock:
    """The time of day of the programs that have `variables`; nobody else's is touched."""

    def __init__(self, place: Path) -> None:
        library, self._moved = place / "moved_clock.so", place / "moved"
        if not self._moved.exists():
            source = Path(__file__).with_name("moved_clock.c")
            _run("cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl")
            self._moved.write_bytes(bytes(8))
        self.variables = {"LD_PRELOAD": str(library), "MOVED_CLOCK": str(self._moved)}

    @property
    def moved_s(self) -> int:
        """How far it is off."""
        return int.from_bytes(self._moved.read_bytes(), "little", signed=True)

    def move(self, seconds: int) -> None:
        """From this moment on."""
        with self._moved.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


@contextlib.contextmanager
def a_farm(place: Path) -> Iterator[Farm]:
    """A farm without servers yet; in the end all are ended, and have left nothing."""
    open_to_commands(place)
    farm = Farm(place)
    try:
        yield farm
    except BaseException:
        for server in farm.servers:
            with contextlib.suppress(Exception):
                server.stop()
        raise
    farm.end()


def some_moment(chance: random.Random, longest_s: float = LONGEST_S) -> None:
    """Wait for a moment that the seed picks. Whatever happens to run then, the result must be right."""
    time.sleep(chance.uniform(0, longest_s))
