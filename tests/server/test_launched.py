"""A launched server: its key from standard input, its address from who launched it, nothing left of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from secure_vocabulary import SecureClient
from server_vocabulary import DEADLINE_S, ROOT

from rakefarm.config import ConfigError
from rakefarm.security import keys
from rakefarm.server.launched import LONGEST_LINE_BYTES, own_address


def start(tmp_path: Path, *words: str, way: str = "ssh", **variables: str) -> "subprocess.Popen[bytes]":
    (tmp_path / "tmp").mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
        "SSH_CONNECTION": "192.0.2.9 50000 127.0.0.1 22",
        **variables,
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "rakefarm.server", "--launched", way, "-p", "0", *words],
        env=environment,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )


def test_it_asks_for_the_key_that_came_and_ends_with_its_input(tmp_path: Path) -> None:
    key = keys.Key("zoe", os.urandom(32))
    with start(tmp_path) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(keys.format_key(key).encode())
        process.stdin.flush()
        line = process.stdout.readline().decode()
        assert line.startswith("listening on 127.0.0.1:") and "authentication=key encryption=tls" in line
        client = SecureClient("127.0.0.1", int(line.split()[2].rpartition(":")[2])).prove(key)
        client.socket.close()
        assert [path.stat().st_mode & 0o777 for path in tmp_path.rglob("keys")] == [0o600]
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
    assert list((tmp_path / "tmp").iterdir()) == [] and not list(tmp_path.rglob("store"))


@pytest.mark.parametrize("sent", [b"", b"zoe 12", b"nonsense\n", b"x" * (LONGEST_LINE_BYTES + 9)])
def test_without_a_key_it_does_not_start(tmp_path: Path, sent: bytes) -> None:
    with start(tmp_path) as process:
        out, err = process.communicate(sent, DEADLINE_S)
    assert (process.returncode, out, err.count(b"\n")) == (2, b"", 1) and err.startswith(b"rakeserver: error: ")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_directory_for_temporary_files_that_is_elsewhere_is_forgotten(tmp_path: Path) -> None:
    with start(tmp_path, TMPDIR="/nonexistent/of-another-machine") as process:
        _, err = process.communicate(b"nonsense\n", DEADLINE_S)
    assert process.returncode == 2 and b"not a name and a token" in err, err


def test_the_address_is_the_one_by_which_the_owner_reaches_it() -> None:
    assert own_address("ssh", {"SSH_CONNECTION": "192.0.2.9 50000 192.0.2.7 22"}) == "192.0.2.7"
    # A user's own ssh session stands in the environment that Slurm hands on, and says nothing of the node.
    mixed = {"SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "SSH_CONNECTION": "192.0.2.9 50000 192.0.2.7 22"}
    assert own_address("slurm", mixed) == "127.0.0.1"


@pytest.mark.parametrize(
    ("way", "environ"),
    [("ssh", {}), ("ssh", {"SSH_CONNECTION": "x"}), ("slurm", {"SLURM_LAUNCH_NODE_IPADDR": "no address"})],
)
def test_who_is_not_told_says_so(way: str, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="name one with -i"):
        own_address(way, environ)
