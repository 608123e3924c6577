"""Where keys are: in the workers' memory, and in no process that starts commands or comes of one that does."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from secure_vocabulary import SecureClient, open_keyed_server
from server_vocabulary import Server

from rakefarm.security.keys import read_keys


def memory_of(pid: int) -> Iterator[bytes]:
    """All that a process may write to, and all that it has written: what it has read from a file is there."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, permissions, *_ = line.split()
            if permissions.startswith("rw") and "[v" not in line:
                begin, end = (int(number, 16) for number in span.split("-"))
                memory.seek(begin)
                with contextlib.suppress(OSError):
                    yield memory.read(end - begin)


def has_in_memory(process: psutil.Process, secret: bytes) -> bool:
    return any(secret in part for part in memory_of(process.pid))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    # At the level none its own user may look, so that the test can.
    server, _ = open_keyed_server(tmp_path, "--slots", "1", "--workers", "1", "--isolation", "none")
    yield server
    server.end()


def test_only_workers_ever_hold_a_key(server: Server, tmp_path: Path) -> None:
    key = read_keys(str(tmp_path / "keys"))["zoe"]
    loaded = load_pem_private_key((tmp_path / "state" / "rakefarm" / "server.pem").read_bytes(), None)
    private = loaded.private_numbers().private_value.to_bytes(32, "little")  # type: ignore[union-attr]
    with SecureClient(server.host, server.port) as client:
        assert client.prove(key).run(b"echo $PPID").stdout, "and there is an executor now"
    (worker,) = [psutil.Process(pid) for pid in server.worker_pids()]
    others = [process for process in server.tree() if process.pid != worker.pid]
    assert len(others) >= 3, "the listener, the nursery, an executor"
    try:
        for secret in (key.token, private):
            assert has_in_memory(worker, secret), "else this looks in the wrong place"
    except PermissionError:
        pytest.skip(f"user {os.geteuid()} may not look into its own processes here")
    for secret in (key.token, key.token.hex().encode(), private, private[::-1]):
        assert [process.pid for process in others if has_in_memory(process, secret)] == []
