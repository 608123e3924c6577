"""`rakefarm up --ssh` and `rakefarm run --ssh`, by a real ssh to a real sshd that is started here, by a user of its own
making: keys, configuration and known hosts are all in a temporary directory, and ~/.ssh is neither read nor written."""

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_vocabulary import User, holds_no_token
from server_vocabulary import ROOT, is_alive, open_to_commands, processes_in, wait_until

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
SEPARATED = Path("/run/sshd")
"""An empty directory that sshd wants when root starts it; a service manager makes it elsewhere."""
pytestmark = [
    pytest.mark.skipif(
        not SSHD or not shutil.which("ssh-keygen") or not shutil.which("ssh"),
        reason="there is no sshd here: apt-get install openssh-server openssh-client",
    ),
    pytest.mark.skipif(
        os.geteuid() != 0 and not pwd.getpwuid(os.geteuid()).pw_shell.endswith("sh"),
        reason="this user has no shell to log in to",
    ),
    pytest.mark.xdist_group("ssh"),
]
SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host
AuthorizedKeysFile {place}/mine.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
PrintMotd no
"""
CLIENT = """\
Host lab1 lab2 lab3
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {place}/mine
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {place}/known
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
"""


@contextlib.contextmanager
def sshd(place: Path) -> Iterator[int]:
    """One that lets in who has the key in `place`; answers its port."""
    for name in ("host", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    (place / "sshd_config").write_text(SERVER.format(port=port, place=place))
    (place / "known").write_text(f"[127.0.0.1]:{port} {(place / 'host.pub').read_text()}")
    made = os.geteuid() == 0 and not SEPARATED.exists()
    if made:
        SEPARATED.mkdir(mode=0o755)
    log = place / "sshd.log"
    with log.open("wb") as file:
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(place / "sshd_config")], stderr=file)

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        wait_until(listens, "sshd")
        yield port
    finally:
        process.terminate()
        process.wait(10)
        if made:
            SEPARATED.rmdir()


def own_files() -> list[tuple[str, int, int]]:
    """What is in ~/.ssh, which is whose /etc/passwd says it is: ssh does not ask HOME."""
    place = Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh"
    found = [place, *sorted(place.rglob("*"))] if place.exists() else []
    return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in found]


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """A user who can reach lab1, lab2 and lab3 by ssh, and leaves nothing behind there or here."""
    before = own_files()
    place = tmp_path / "ssh"
    place.mkdir()
    open_to_commands(tmp_path)
    made = User(tmp_path / "user", {})
    with sshd(place) as port:
        (place / "config").write_text(CLIENT.format(port=port, user=getpass.getuser(), place=place))
        programs = tmp_path / "programs"
        programs.mkdir()
        (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {place / "config"} "$@"\n')
        (programs / "ssh").chmod(0o755)
        made.environ["PATH"] = f"{programs}:{made.environ['PATH']}"
        there = tmp_path / "there"
        (there / "tmp").mkdir(parents=True)
        open_to_commands(there / "tmp")
        made.program(
            made.home / "rakeserver",
            before=f"export PYTHONPATH={ROOT} TMPDIR={there / 'tmp'} XDG_CONFIG_HOME={there / 'config'}",
        )
        yield made
        wait_until(lambda: not servers(tmp_path), "all servers gone")
        assert list((there / "tmp").iterdir()) == []
    assert own_files() == before


def servers(place: Path) -> list[int]:
    """The processes of the servers that ssh has started."""
    return [pid for pid in processes_in(f"TMPDIR={place / 'there' / 'tmp'}") if is_alive(pid)]


def host_file(user: User, *lines: str) -> str:
    path = user.home / "hosts"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_hosts_that_are_all_used_and_gone_after_sigterm(user: User) -> None:
    up = user.start("up", "--ssh", host_file(user, "# the lab", "lab1", "lab2/1", "ssh://lab3"))
    hosts, key_file = up.wait_up()
    assert len(hosts) == 3 and hosts[2].startswith("ssh://lab3:")
    assert all(host.startswith("127.0.0.1:") for host in hosts[:2])
    assert holds_no_token([*servers(user.home.parent), up.process.pid], key_file)
    assert user.build_everywhere(hosts, key_file) == set(hosts)
    assert up.end() == 0
    assert up.err.count("\n") == 1, up.err
    assert list((user.home / "tmp").iterdir()) == []


def test_make_runs_on_the_farm_and_its_status_is_ours(user: User) -> None:
    place = user.project()
    hosts = host_file(user, "lab1", "lab2")
    run = user.run("run", "--ssh", hosts, "-v", "make", "-j4", "CC=gcc", where=place)
    assert run.process.returncode == 0, run.err
    assert all((place / f"f{number}.o").exists() for number in range(12))
    assert "here:" not in run.err, run.err
    assert user.run("run", "--ssh", hosts, "make", "fail", where=place).process.returncode == 2


def test_a_host_that_is_not_reached_is_one_line_and_ends_the_others(user: User) -> None:
    config = user.home.parent / "ssh" / "config"
    text = config.read_text()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config.write_text(f"Host lab2\n    Port {sock.getsockname()[1]}\n{text}")
        up = user.run("up", "--ssh", host_file(user, "lab1", "lab2"))
    assert up.process.returncode == 3
    line = up.one_line()
    assert line.startswith("rakefarm: error: lab2: ssh failed: ssh: connect to host 127.0.0.1 port "), line
    assert line.endswith("Connection refused [RF008]"), line


def test_a_key_that_is_not_let_in_is_one_line(user: User) -> None:
    (user.home.parent / "ssh" / "mine.pub").write_text("")
    up = user.run("up", "--ssh", host_file(user, "lab1"))
    assert up.process.returncode == 3
    assert "lab1: ssh failed: " in up.one_line() and "Permission denied (publickey)" in up.one_line()


def test_when_we_are_killed_the_servers_end_by_themselves(user: User) -> None:
    up = user.start("up", "--ssh", host_file(user, "lab1", "ssh://lab3"))
    up.wait_up()
    place = user.home.parent
    assert servers(place)
    up.process.send_signal(signal.SIGKILL)
    up.process.wait()
    wait_until(lambda: not servers(place), "all servers gone")
