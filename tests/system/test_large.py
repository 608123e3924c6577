"""A gigabyte each way: no process of ours ever holds more than a little of it in memory."""

import hashlib
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from farm_vocabulary import Project, wait_until_idle
from server_vocabulary import StartServer

GIB = 1 << 30
MOST_BYTES = 64 << 20
SAMPLE_S = 0.02


def peak_bytes(pid: int) -> int:
    """The most that a process has held resident so far; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


class Peaks:
    """Samples the peaks of some processes, new ones among them included, while the context lasts."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids = pids
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.highest: dict[int, int] = {}

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for pid in self._pids():
                self.highest[pid] = max(self.highest.get(pid, 0), peak_bytes(pid))

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("output", ["file", "stream"])
def test_a_gigabyte_each_way_stays_out_of_memory(
    project: Project, start_server: StartServer, tmp_path: Path, output: str
) -> None:
    (tmp_path / "server.toml").write_text('[limits]\nstdout_size = "2G"', encoding="utf-8")
    server = start_server("--slots", "1", "--workers", "1", "--config", str(tmp_path / "server.toml"))
    # One small build, so that what is loaded once is loaded: that is what idle means.
    project.write("in", bytes(2 << 20))
    command = "remote-cp in out" if output == "file" else "remote-cat in"
    project.rakefile("a:", command, "> requires in")
    small = project.start(hosts=[server])
    with Peaks(lambda: [small.process.pid]) as client_idle:
        small.end()
    ours = [process.pid for process in server.tree()]
    idle = {pid: peak_bytes(pid) for pid in ours}
    piece = bytes(range(256)) * 4096
    with (project.path / "in").open("wb") as file:
        for number in range(GIB // len(piece)):
            file.write(number.to_bytes(8, "big") + piece[8:])
    expected = digest_of(project.path / "in")

    client = project.start("--json=/dev/null", hosts=[server])
    if output == "stream":
        received = hashlib.sha256()
        assert client.process.stdout
        with Peaks(lambda: [*ours, client.process.pid]) as peaks:
            while data := client.process.stdout.read(1 << 20):
                received.update(data)
            built = client.end()
        assert received.hexdigest() == expected
    else:
        with Peaks(lambda: [*ours, client.process.pid]) as peaks:
            built = client.end()
        assert digest_of(project.path / "out") == expected
    assert built.status == 0, built.stderr

    base = max(client_idle.highest.values(), default=20 << 20)
    assert peaks.highest.pop(client.process.pid) - base < MOST_BYTES
    assert set(ours) <= set(peaks.highest)
    for pid, highest in peaks.highest.items():
        assert highest - idle[pid] < MOST_BYTES, f"process {pid}: {idle[pid]} to {highest}"
    wait_until_idle(server)
    (project.path / "in").unlink()
    (project.path / "out").unlink(missing_ok=True)
