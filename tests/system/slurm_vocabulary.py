"""Slurm with four nodes on one machine: Debian's own daemons, each started as itself, in a directory of a test's.

Nothing is installed: the packages that are missing are fetched and unpacked in that directory. No daemon is known to a
service manager, and all of them end by their process ids. One daemon a node, told apart by -N, its port and its
directories (`SlurmdSpoolDir` with %n), is what Slurm calls multiple slurmd support; Debian's build has it.
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from server_vocabulary import processes_in, wait_until

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "sinfo", "squeue", "salloc", "srun", "scancel")
FETCH_S = 120
NODES = ("n1", "n2", "n3", "n4")
CONFIGURATION = """\
ClusterName=emulated
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
CryptoType=crypto/munge
{plugins}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool/%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/log/slurmctld
SlurmdLogFile={place}/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
PartitionName=lab Nodes=ALL Default=YES MaxTime=60 State=UP
"""


class Unavailable(Exception):
    """The parts can't be had here; the text says why."""


@dataclass
class Programs:
    """Where Slurm's programs are, and the variables that they need."""

    paths: Mapping[str, str]
    variables: Mapping[str, str]
    plugins: str = ""

    def __getitem__(self, name: str) -> str:
        return self.paths[name]


def find_programs(place: Path) -> Programs:
    """The machine's own, or else unpacked below `place`. Raises Unavailable."""
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=search) for name in PROGRAMS}
    if all(found.values()):
        return Programs({name: str(path) for name, path in found.items()}, {})
    root = place / "root"
    _fetch(place / "packages", root)
    libraries = root / "usr" / "lib" / str(sysconfig.get_config_var("MULTIARCH"))
    paths = {}
    for name in PROGRAMS:
        # Debian has the daemons under names of their own, and makes the usual ones when it installs them.
        candidates = [root / "usr" / part / each for part in ("bin", "sbin") for each in (name, f"{name}-wlm")]
        path = next((each for each in candidates if each.exists()), None)
        if path is None:
            raise Unavailable(f"Debian's packages {', '.join(PACKAGES)} have no {name}")
        paths[name] = str(path)
    plugins = libraries / "slurm-wlm"
    return Programs(
        paths,
        {
            "LD_LIBRARY_PATH": f"{libraries}:{plugins}",
            "PATH": f"{root / 'usr' / 'bin'}:{os.environ['PATH']}",
        },
        f"PluginDir={plugins}",
    )


def _fetch(packages: Path, root: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise Unavailable("Slurm is not installed, and there is no apt-get to fetch it with")
    (packages / "partial").mkdir(parents=True)
    options = ("-q", "-y", "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={packages}/")
    words = ["apt-get", *options, "--download-only", "--no-install-recommends", "install", *PACKAGES]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=FETCH_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"Slurm is not installed, and apt-get fetched nothing in {FETCH_S} s") from error
    if done.returncode:
        raise Unavailable(
            f"Slurm is not installed, and apt-get can't fetch it: {done.stderr.strip().splitlines()[-1:]}"
        )
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True, timeout=60)


def network_address() -> str:
    """An address of this machine that others could reach; loopback where it has none."""
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            if (
                each.family == socket.AF_INET
                and not each.address.startswith("127.")
                and psutil.net_if_stats()[name].isup
            ):
                return each.address
    return "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as sockets:
        found = [sockets.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


@dataclass
class Cluster:
    """Four nodes that are ready for jobs."""

    place: Path
    programs: Programs
    address: str
    environ: dict[str, str]
    home: Path
    """The user's. No daemon has it in its environment, all that the user starts does."""
    daemons: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self, name: str, *words: str) -> str:
        """What one of Slurm's commands prints."""
        command = [self.programs[name], *words]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """The names of all jobs, pending, running, or not yet cleared away."""
        return self.run("squeue", "-h", "-o", "%j").split()

    def free(self) -> bool:
        """Whether all nodes are idle."""
        return self.run("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * len(NODES)

    def processes(self) -> list[int]:
        """Every process of jobs, and of what launches them: those that have the user's directory in their environment."""
        return processes_in(self.home)

    def wait_clear(self) -> None:
        """Until no job is left, no process of one, and all nodes are idle."""
        wait_until(lambda: not self.jobs(), "an empty queue")
        wait_until(lambda: not self.processes(), "no process of a job or a launcher")
        wait_until(self.free, "idle nodes")


@contextlib.contextmanager
def cluster(place: Path) -> Iterator[Cluster]:
    """Four emulated nodes for as long as the context lasts. Raises Unavailable."""
    programs = find_programs(place)
    for name in ("munge", "state", "spool", "log", *(f"spool/{node}" for node in NODES)):
        (place / name).mkdir()
    (place / "munge" / "key").write_bytes(os.urandom(128))
    (place / "munge" / "key").chmod(0o600)
    address, host, ports = network_address(), socket.gethostname().partition(".")[0], free_ports(1 + len(NODES))
    text = CONFIGURATION.format(
        host=host, address=address, port=ports[0], user=getpass.getuser(), place=place, plugins=programs.plugins
    )
    for node, port in zip(NODES, ports[1:], strict=True):
        text += f"NodeName={node} NodeHostname={host} NodeAddr={address} Port={port} CPUs=2\n"
    (place / "slurm.conf").write_text(text)
    environ = {**os.environ, **programs.variables, "SLURM_CONF": str(place / "slurm.conf")}
    (place / "home").mkdir()
    made = Cluster(place, programs, address, environ, place / "home")
    with contextlib.ExitStack() as stopping:
        try:
            _start_all(made, stopping)
        except AssertionError as error:
            raise Unavailable(f"Slurm does not start here: {_last_errors(place)}") from error
        yield made


def _start_all(made: Cluster, stopping: contextlib.ExitStack) -> None:
    place, programs = made.place, made.programs

    def start(name: str, *words: str) -> None:
        with open(place / "log" / f"{name}-{len(made.daemons)}.out", "wb") as log:
            words = (programs[name], *words)
            process = subprocess.Popen(
                words, env=made.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=place
            )
        made.daemons.append(process)
        stopping.callback(_stop, process)

    munge = place / "munge"
    files = [f"--{what}={munge / what}" for what in ("socket",)]
    files += [f"--{what}-file={munge / what}" for what in ("key", "pid", "log", "seed")]
    # --force: it is told to trust directories whose parents belong to another user, as those of tests do.
    start("munged", "--foreground", "--force", *files)
    wait_until((munge / "socket").exists, "munged's socket", 20)
    start("slurmctld", "-D", "-f", str(place / "slurm.conf"))
    for node in NODES:
        start("slurmd", "-D", "-N", node, "-f", str(place / "slurm.conf"), "-d", programs["slurmstepd"])
    wait_until(made.free, "four idle nodes", 40)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_errors(place: Path) -> str:
    lines = [
        line for path in sorted((place / "log").iterdir()) for line in path.read_text(errors="replace").splitlines()
    ]
    return " | ".join([line for line in lines if "error" in line or "fatal" in line][-3:])
