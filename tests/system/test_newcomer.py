"""The README's four commands, as they stand there, on three machines: network namespaces with cables between them, an
ssh server in each of the lab's, and nothing else than the package installed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_vocabulary import ROOT, wait_until

PROGRAMS = ("ip", "nsenter", "unshare", "ssh", "ssh-keygen", "sshd")
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes machines"),
    pytest.mark.skipif(
        not all(shutil.which(name, path=PATH) for name in PROGRAMS), reason="there is no sshd or ip here"
    ),
]
ADDRESSES = {"lab1": "10.77.1.2", "lab2": "10.77.2.2"}
SSHD = """\
HostKey {place}/host_key
AuthorizedKeysFile {place}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
SetEnv XDG_CONFIG_HOME={place}/config PATH={path}
"""


class Machine:
    """A network namespace, and a home of its own."""

    def __init__(self, name: str, place: Path, hosts: Path) -> None:
        self.name, self.place = name, place
        place.mkdir()
        setup = (
            f"mount --bind {hosts} /etc/hosts && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd &&"
            " ip link set lo up && echo made && exec sleep infinity"
        )
        self._holder = subprocess.Popen(
            ["unshare", "-n", "-m", "--propagation", "private", "sh", "-c", setup],
            stdout=subprocess.PIPE,
            env={"PATH": PATH},
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline() == b"made\n"
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """A process that is in there."""
        return self._holder.pid

    def _words(self, command: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "--wd=" + str(self.place), "sh", "-c", command]

    @property
    def _environment(self) -> dict[str, str]:
        names = {"XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state"}
        own = {name: str(self.place / directory) for name, directory in names.items()}
        return {"PATH": PATH, "HOME": str(self.place), "LANG": "C.UTF-8", **own}

    def run(self, command: str) -> "subprocess.CompletedProcess[str]":
        """A command that ends, in the home."""
        return subprocess.run(
            self._words(command), env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, command: str) -> "subprocess.Popen[bytes]":
        """One that goes on, its output in a pipe."""
        process = subprocess.Popen(
            self._words(f"exec {command}"),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """With all that was started here."""
        for process in (*self._started, self._holder):
            process.send_signal(signal.SIGTERM)
        for process in (*self._started, self._holder):
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()


def ran(*words: str) -> None:
    subprocess.run(words, env={"PATH": PATH}, check=True, capture_output=True, timeout=30)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    """`yours` and two of the lab, which you can reach by your own ssh."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))
    made: dict[str, Machine] = {}
    try:
        for name in ("yours", *ADDRESSES):
            made[name] = Machine(name, tmp_path / name, hosts)
        key = made["yours"].place / "id"
        ran("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        ssh = tmp_path / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text(
            f"#!/bin/sh\nexec {shutil.which('ssh')} -F none -i {key} -o UserKnownHostsFile=/dev/null"
            ' -o StrictHostKeyChecking=no -o LogLevel=ERROR "$@"\n'
        )
        ssh.chmod(0o755)
        for number, name in enumerate(ADDRESSES):
            lab, cable = made[name], f"rfn{os.getpid() % 100000}-{number}"
            ran("ip", "link", "add", cable, "type", "veth", "peer", "name", f"{cable}p")
            for machine, end, address in (
                (made["yours"], cable, ADDRESSES[name][:-1] + "1"),
                (lab, f"{cable}p", ADDRESSES[name]),
            ):
                ran("ip", "link", "set", end, "netns", str(machine.pid))
                assert machine.run(f"ip addr add {address}/24 dev {end} && ip link set {end} up").returncode == 0
            ran("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(lab.place / "host_key"))
            (lab.place / "authorized_keys").write_text((key.parent / "id.pub").read_text())
            (lab.place / "sshd_config").write_text(SSHD.format(place=lab.place, path=PATH))
            lab.start(f"{shutil.which('sshd', path=PATH)} -D -f {lab.place}/sshd_config")
        wait_until(lambda: all(made["yours"].run(f"{ssh} {name} true").returncode == 0 for name in ADDRESSES), "ssh")
        yield made
    finally:
        for machine in made.values():
            machine.end()


def commands() -> list[str]:
    """What the README has a newcomer type, after the installation."""
    section = (ROOT / "README.md").read_text().partition("\n## A farm\n")[2].partition("\n## ")[0]
    install, use = re.findall(r"```sh\n(.*?)```", section, re.S)[:2]
    assert install.count("\n") == 1 and "pip install" in install
    found = [line.partition("  #")[0].strip() for line in use.splitlines()]
    assert len(found) <= 3, "with the installation these are four"
    return found


def test_from_nothing_to_a_build_on_two_machines(machines: dict[str, Machine], tmp_path: Path) -> None:
    yours = machines["yours"]
    share, serve, build = commands()
    done = yours.run(f"PATH={tmp_path}/bin:$PATH {share}")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ADDRESSES:
        server = machines[name].start(serve)
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith(b"listening on "):
                break
        else:
            raise AssertionError(f"{name} does not listen")
        assert b"authentication=key" in line, line
    shutil.copytree(ROOT / "examples" / "tally", yours.place / "tally", ignore=shutil.ignore_patterns("*.o", "tally"))
    done = yours.run(f"cd tally && {build}")
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stderr
    assert "29 remote" in said and "nothing ran remotely" not in said and "warning" not in said, said
    for name in ADDRESSES:
        assert re.search(rf"^  {name}:6238 +\d+ actions? ", said, re.M), said
