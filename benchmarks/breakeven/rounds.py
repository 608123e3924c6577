"""Runs the cases: each once here and once on the farm, in turn, in shuffled rounds."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from breakeven.cases import Case
from breakeven.limiter import limited
from cable.link import Conditions, Link, Machine, measure_rate, measure_round_trip
from farm import ENVIRONMENT

HERE_CORE, THERE_CORE = "0", "1"


@dataclass(frozen=True)
class Measured:
    """One round of one case: seconds here, on the farm and with distcc
    (0: not run), and what the cable really was like."""

    case: Case
    number: int
    round: int
    local_s: float
    remote_s: float
    distcc_s: float
    work_s: float
    input_bytes: float
    output_bytes: float
    round_trip_s: float
    rate_bps: float


class Bench:
    """The two machines, the hosts that run on one of them, and the cases' files."""

    def __init__(self, wire: Link, directory: str, hosts: Sequence[str], key_file: str, distcc_port: int) -> None:
        self._wire = wire
        self._directory = directory
        self._hosts = hosts
        self._key_file = key_file
        self._distcc_port = distcc_port
        self._conditions: dict[tuple[float, float], tuple[float, float]] = {}
        self._work: dict[str, float] = {}

    def run(self, case: Case, number: int, round_number: int) -> Measured:
        """Both ways, in random order."""
        round_trip_s, rate_bps = self._set_cable(case)
        with tempfile.TemporaryDirectory(dir=self._directory) as directory:
            names = [
                case.source.write(directory, index, case.padding_bytes) if not case.emulated else str(index)
                for index in range(case.actions)
            ]
            command = f"sleep {case.sleep_s}" if case.emulated else case.source.command
            with self._loaded(case.load):
                ways = {"local": self._local, "remote": self._remote, "distcc": self._distcc}
                order = random.Random(f"{number} {round_number}").sample(sorted(ways), len(ways))
                seconds = {way: ways[way](directory, command, names, case) for way in order}
            made = [os.path.getsize(os.path.join(directory, name + ".o")) for name in names if not case.emulated]
        return Measured(
            case,
            number,
            round_number,
            seconds["local"],
            seconds["remote"],
            seconds["distcc"],
            self._work_of(case),
            self._sent(case),
            sum(made) / len(made) if made else 0.0,
            round_trip_s,
            rate_bps,
        )

    def _sent(self, case: Case) -> float:
        return float(case.padding_bytes) if case.cold else 0.0

    def _set_cable(self, case: Case) -> tuple[float, float]:
        """Set it and answer what it does: measured once for each setting."""
        asked = case.round_trip_s, case.rate_bps
        self._wire.set(Conditions(*asked))
        if asked not in self._conditions:
            measured = measure_round_trip(self._wire), measure_rate(self._wire, round(min(case.rate_bps, 1e9) / 16))
            self._conditions[asked] = measured
        return self._conditions[asked]

    @contextlib.contextmanager
    def _loaded(self, load: int) -> Iterator[None]:
        spinners = [self._wire.there.start([sys.executable, "-c", _SPIN], THERE_CORE) for _ in range(load)]
        try:
            yield
        finally:
            for spinner in spinners:
                assert spinner.stdin
                spinner.stdin.close()
                spinner.wait()

    def _local(self, directory: str, command: str, names: Sequence[str], case: Case) -> float:
        names = names if not case.emulated else [""] * len(names)
        script = "\n".join(["set -e", *[command.replace("@", name) for name in names]])
        return self._timed(["/bin/sh", "-c", script], directory, case.share, waits=False)

    def _remote(self, directory: str, command: str, names: Sequence[str], case: Case) -> float:
        lines = ["compile:"]
        for name in names:
            lines.append("\tremote-" + command.replace("@", name))
            if not case.emulated:
                lines.append(f"\t\trequires {name}{case.source.suffix}")
        with open(os.path.join(directory, "Rakefile"), "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
        hosts = ",".join(self._hosts[: case.hosts])
        arguments = [sys.executable, "-m", "rakefarm.client", "--progress", "none", "--hosts", hosts]
        arguments += ["--key-file", self._key_file]
        if not case.cold:
            self._timed(arguments, directory, 1.0, waits=True)
        return self._timed(arguments, directory, case.share, waits=True)

    def _distcc(self, directory: str, command: str, names: Sequence[str], case: Case) -> float:
        """The same with distcc, one job at a time; it knows no store, so its inputs are always sent."""
        if case.emulated or not self._distcc_port:
            return 0.0
        os.makedirs(os.path.join(self._directory, "distcc"), exist_ok=True)
        script = "\n".join(["set -e", *["distcc " + command.replace("@", name) for name in names]])
        environment = {
            **ENVIRONMENT,
            "DISTCC_HOSTS": f"{self._wire.there.address}:{self._distcc_port}/1",
            "DISTCC_FALLBACK": "0",
            "DISTCC_DIR": os.path.join(self._directory, "distcc"),
        }
        return self._timed(["/bin/sh", "-c", script], directory, case.share, True, environment)

    def _timed(
        self,
        arguments: Sequence[str],
        directory: str,
        share: float,
        waits: bool,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> float:
        started = time.perf_counter()
        process = subprocess.Popen(
            self._wire.here.command(arguments, HERE_CORE),
            cwd=directory,
            env=dict(environment),
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        with limited(process, share, waits):
            status = process.wait()
        seconds = time.perf_counter() - started
        if status:
            raise subprocess.CalledProcessError(status, list(arguments))
        return seconds

    def _work_of(self, case: Case) -> float:
        """Seconds that one action of the case takes on a processor that does nothing else: the least of three."""
        name = f"{case.source.name} {case.padding_bytes} {case.sleep_s}"
        if name not in self._work:
            with tempfile.TemporaryDirectory(dir=self._directory) as directory:
                made = "" if case.emulated else case.source.write(directory, 0, case.padding_bytes)
                command = f"sleep {case.sleep_s}" if case.emulated else case.source.command.replace("@", made)
                self._work[name] = min(self._timed(["/bin/sh", "-c", command], directory, 1.0, False) for _ in range(3))
        return self._work[name]


@contextlib.contextmanager
def bench(wire: Link, hosts: int) -> Iterator[Bench]:
    """So many servers of one slot each behind the cable, all on one processor, with a key, as in a lab."""
    with contextlib.ExitStack() as ending, tempfile.TemporaryDirectory(prefix="rakefarm-breakeven-") as directory:
        key_file = os.path.join(directory, "keys")
        subprocess.run(
            [sys.executable, "-m", "rakefarm", "key", "new", "--key-file", key_file, "bench"],
            env=ENVIRONMENT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        addresses = [_start_host(wire.there, directory, number, key_file) for number in range(hosts)]
        ending.callback(wire.there.end)
        yield Bench(wire, directory, addresses, key_file, _start_distcc(wire.there))


def _start_host(there: Machine, directory: str, number: int, key_file: str) -> str:
    arguments = [sys.executable, "-m", "rakefarm.server", "--until-eof", "-i", there.address, "--port", "0"]
    arguments += ["--slots", "1", "--workers", "1", "--key-file", key_file]
    environment = {**ENVIRONMENT, "XDG_CACHE_HOME": os.path.join(directory, f"cache-{number}")}
    process = there.start(arguments, THERE_CORE, environment)
    assert process.stdout
    return process.stdout.readline().split()[2]


def _start_distcc(there: Machine) -> int:
    """Its port, or 0 where it is not installed."""
    if not shutil.which("distcc") or not shutil.which("distccd"):
        return 0
    port = 3632  # in a network namespace of ours, where nobody else listens
    # It has no way to end with its standard input, so a shell ends it.
    daemon = f"distccd --no-detach --daemon --listen {there.address} --port {port} --jobs 1 --allow 10.119.0.0/16"
    script = f"{daemon} --enable-tcp-insecure --log-level error --log-file /dev/null & cat; kill $!; wait"
    there.start(["/bin/sh", "-c", script], THERE_CORE)
    return port


_SPIN = """
import sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
while True:
    pass
"""
