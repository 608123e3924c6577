"""`rakefarm lab`: emulated hosts until we are told to stop."""

import os
import signal
import tempfile

from msgspec import structs

from rakefarm.exitcodes import ExitStatus
from rakefarm.lab.draw import LabError, draw
from rakefarm.lab.emulation import EmulatedFarm, compile_work, describe
from rakefarm.lab.scenario import Fault, Foreign, Scenario
from rakefarm.lab.told import Told, raising_when_told

QUIET = Foreign("none")
BUSY = Foreign("onoff", level=0.5, on_s=1e9, off_s=1e9)
"""About half of the hosts have half of their cores busy, for good."""
CHANGING = Foreign("onoff", level=0.7, on_s=10.0, off_s=10.0)
NEAR_S, DISTANT_S = (0.0, 0.0), (2e-3, 40e-3)
"""Round trips: those of loopback, and emulated ones from another room to another town."""
FLAKY_S = 20.0
PROFILES = ("uneven", "alike", "busy", "changing", "distant", "flaky", "slow", "liar")


def scenario_of(hosts: int, profile: tuple[str, ...]) -> Scenario:
    """The farm that these words mean. Raises LabError for one that means nothing."""
    unknown = [word for word in profile if word not in PROFILES]
    if unknown:
        raise LabError(f"--profile {unknown[0]}: there are {', '.join(PROFILES)}")
    farm = Scenario(hosts=hosts, cores=(1, 2, 2, 3, 4, 4, 6), foreign=QUIET, round_trip_s=NEAR_S)
    faults: list[Fault] = []
    for word in profile:
        match word:
            case "alike":
                farm = structs.replace(farm, cores=(2,), slowest=1.0, fastest=1.0)
            case "busy":
                farm = structs.replace(farm, foreign=BUSY)
            case "changing":
                farm = structs.replace(farm, foreign=CHANGING)
            case "distant":
                farm = structs.replace(farm, round_trip_s=DISTANT_S)
            case "flaky":
                faults.append(Fault("dead", at_s=FLAKY_S))
            case "slow" | "liar":
                faults.append(Fault("slow" if word == "slow" else "liar"))
    return structs.replace(farm, faults=tuple(faults))


def serve(hosts: int, profile: tuple[str, ...], seed: int) -> int:
    """Start them, say where they are, and wait for a signal; answers the exit status. Raises LabError."""
    drawn = draw(scenario_of(hosts, profile), seed)

    try:
        with raising_when_told(), tempfile.TemporaryDirectory(prefix="rakefarm-lab-") as directory:
            os.chmod(directory, 0o711)  # nosec B103 # commands find their program below it, whatever their uids
            with EmulatedFarm(drawn.hosts, compile_work(directory), directory) as farm:
                print(
                    "emulated hosts: cores, speeds, foreign load and delays are pretended;"
                    " `work SECONDS TAG` takes its time there, asleep"
                )
                for line in describe(drawn, farm.addresses):
                    print(line)
                print(f"rake-p --hosts {','.join(farm.addresses)}", flush=True)
                farm.begin()
                while True:
                    signal.pause()
    except Told as end:
        return end.status if end.number == signal.SIGINT else int(ExitStatus.OK)
