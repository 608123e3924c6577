"""A file of a gigabyte to the server and one back: what client and workers hold in memory.

python3 benchmarks/large_files.py [MEBIBYTES]
"""

import os
import subprocess
import sys
import tempfile
import threading
import time

import psutil
from farm import ENVIRONMENT, Server, server


class PeakMemory:
    """Samples the resident set size of the client and of each of the server's processes."""

    def __init__(self, running: Server, client_pid: int) -> None:
        self._processes = [psutil.Process(client_pid), *running.processes()]
        self._idle = {process.pid: process.memory_info().rss for process in self._processes[1:]}
        self.peaks: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            for process in self._processes:
                try:
                    rss = process.memory_info().rss
                except psutil.Error:
                    continue
                self.peaks[process.pid] = max(self.peaks.get(process.pid, 0), rss)

    def above_idle(self, client_pid: int, client_idle: int) -> tuple[int, int]:
        """Bytes above idle: of the client, and the most of any server process."""
        self._stop.set()
        self._thread.join()
        servers = [peak - self._idle[pid] for pid, peak in self.peaks.items() if pid in self._idle]
        return self.peaks.get(client_pid, 0) - client_idle, max(servers)


def main() -> None:
    """One action each way."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    with tempfile.TemporaryDirectory() as directory, server() as running:
        with open(os.path.join(directory, "big"), "wb") as file:
            for _ in range(size):
                file.write(os.urandom(1 << 20))
        with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
            file.write("idle:\n\tsleep 1\nboth:\n\tremote-cp big copy\n\t\trequires big\n")
        started = time.perf_counter()
        build = subprocess.Popen(
            [sys.executable, "-m", "rakefarm.client", "--progress", "none", "--hosts", running.address],
            cwd=directory,
            env=ENVIRONMENT,
        )
        time.sleep(0.8)  # the client is up and waits for its first, local action
        idle = psutil.Process(build.pid).memory_info().rss
        peak = PeakMemory(running, build.pid)
        assert build.wait() == 0
        client, worker = peak.above_idle(build.pid, idle)
        subprocess.run(["cmp", "big", "copy"], cwd=directory, check=True)
        print(
            f"{size} MiB each way in {time.perf_counter() - started - 1:.1f} s; resident memory above idle:"
            f" client {client / 1e6:.0f} MB, largest server process {worker / 1e6:.0f} MB (target 64 MB)"
        )


if __name__ == "__main__":
    main()
