"""The sweep's data as a CSV file, a row a round of a case, and the facts of the machine beside it."""

import csv
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace

import psutil
from breakeven.rounds import Measured

DATA, EARLIER, MACHINE = "break-even.csv", "earlier.csv", "machine.json"
"""The rows of the sweep, those of another run that it is held against, and the machine."""


@dataclass(frozen=True)
class Row:
    """One round of one case. Seconds, bytes, bits a second; `rate_bps` and `round_trip_s` as measured, `asked_…` as
    set; `load`: processes that compute on the host's processor besides."""

    number: int
    round: int
    factor: str
    source: str
    emulated: bool
    actions: int
    work_s: float
    padding_bytes: int
    cold: bool
    input_bytes: float
    output_bytes: float
    asked_round_trip_s: float
    round_trip_s: float
    asked_rate_bps: float
    rate_bps: float
    share: float
    hosts: int
    load: int
    local_s: float
    remote_s: float
    distcc_s: float

    @property
    def case(self) -> tuple[object, ...]:
        """What was asked for: the same in every run."""
        return (
            *(self.source, self.emulated, self.actions, self.padding_bytes, self.cold, self.asked_round_trip_s),
            *(self.asked_rate_bps, self.share, self.hosts, self.load),
        )

    def with_times(self, local_s: float, remote_s: float, distcc_s: float) -> "Row":
        """The same case with other times."""
        return replace(self, local_s=local_s, remote_s=remote_s, distcc_s=distcc_s)


def row_of(measured: Measured) -> Row:
    """A round as a row."""
    case = measured.case
    return Row(
        measured.number,
        measured.round,
        case.factor,
        case.source.name,
        case.emulated,
        case.actions,
        measured.work_s,
        case.padding_bytes,
        case.cold,
        measured.input_bytes,
        measured.output_bytes,
        case.round_trip_s,
        measured.round_trip_s,
        case.rate_bps,
        measured.rate_bps,
        case.share,
        case.hosts,
        case.load,
        measured.local_s,
        measured.remote_s,
        measured.distcc_s,
    )


def write(directory: str, rows: Iterable[Row]) -> None:
    """Write the rows, and what machine they are of."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, DATA), "w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([each.name for each in fields(Row)])
        for row in rows:
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in asdict(row).values()])
    facts = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
    }
    with open(os.path.join(directory, MACHINE), "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=2)
        file.write("\n")


def read(directory: str, name: str = DATA) -> list[Row]:
    """The rows of a file that `write` made."""
    types = {each.name: each.type for each in fields(Row)}
    convert = {int: int, float: float, bool: lambda text: text == "True", str: str}
    with open(os.path.join(directory, name), encoding="ascii", newline="") as file:
        return [
            Row(**{name: convert[types[name]](text) for name, text in line.items()})  # type: ignore[index]
            for line in csv.DictReader(file)
        ]


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
