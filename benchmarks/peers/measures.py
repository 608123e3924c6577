"""Builds, timed: paired rounds in an order that is drawn anew, medians of the rounds' ratios, objects compared."""

import os
import random
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
from farm import ENVIRONMENT
from peers.ways import Way
from peers.works import COMPILES, Work

LIMIT_S = 200
"""A build that takes longer never ends: icecream waits for a host whose load it thinks is too high, for one."""


@dataclass(frozen=True)
class Build:
    """One: seconds, and the client's CPU seconds, user and system; for local compiles that is the compiling itself."""

    elapsed_s: float
    cpu_s: float


@dataclass(frozen=True)
class Figures:
    """All rounds of one work: builds by way, how many objects were not the local ones, and how many calls ran here that
    should not have."""

    builds: Mapping[str, Sequence[Build]]
    differing: Mapping[str, int]
    strays: Mapping[str, int]

    def seconds(self, way: str) -> float:
        """The median."""
        return statistics.median(build.elapsed_s for build in self.builds[way])

    def cpu(self, way: str) -> float:
        """The median of the client's CPU seconds."""
        return statistics.median(build.cpu_s for build in self.builds[way])

    def ratio(self, way: str, to: str) -> float:
        """The median of the rounds' ratios of times."""
        pairs = zip(self.builds[way], self.builds[to], strict=True)
        return statistics.median(one.elapsed_s / other.elapsed_s for one, other in pairs)

    def cpu_ratio(self, way: str, to: str) -> float:
        """The median of the rounds' ratios of the client's CPU times."""
        pairs = zip(self.builds[way], self.builds[to], strict=True)
        return statistics.median(one.cpu_s / max(other.cpu_s, 1e-9) for one, other in pairs)


def build(way: Way, work: Work, jobs: int) -> Build:
    """Build from nothing. Raises CalledProcessError, also when it takes longer than LIMIT_S."""
    work.clean()
    way.reset()
    daemons = [psutil.Process(pid) for pid in way.daemons()]
    before = _cpu_s(daemons)
    words = [*way.around, "make", "-s", "-f", COMPILES, f"-j{jobs}", f"LAUNCHER={way.launcher}"]
    began = time.perf_counter()
    make = subprocess.Popen(
        words, cwd=work.directory, env={**ENVIRONMENT, **way.environment}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert make.stderr
    overrun = threading.Timer(LIMIT_S, os.killpg, (make.pid, signal.SIGKILL))
    overrun.start()
    said = make.stderr.read()
    _, status, usage = os.wait4(make.pid, 0)
    overrun.cancel()
    elapsed = time.perf_counter() - began
    make.returncode = os.waitstatus_to_exitcode(status)
    make.stderr.close()
    if make.returncode:
        raise subprocess.CalledProcessError(make.returncode, words, stderr=said)
    return Build(elapsed, usage.ru_utime + usage.ru_stime + _cpu_s(daemons) - before)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def measure(work: Work, ways: Sequence[Way], jobs: Mapping[str, int] | int, rounds: int, kept: str) -> Figures:
    """The first of `ways` says what objects must be. One build each way warms every store, and is compared."""
    count = {way.name: jobs if isinstance(jobs, int) else jobs[way.name] for way in ways}
    build(ways[0], work, count[ways[0].name])
    work.keep(kept)
    differing = {}
    for way in list(ways[1:]):
        try:
            build(way, work, count[way.name])
        except subprocess.CalledProcessError as error:
            if way.name == "rakefarm":
                raise
            print(f"  left out: {way.name}: its build ended with {error.returncode}, or took {LIMIT_S} s", flush=True)
            ways = [each for each in ways if each is not way]
        else:
            differing[way.name] = work.differing(kept)
    builds: dict[str, list[Build]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in random.sample(ways, len(ways)):
            builds[way.name].append(build(way, work, count[way.name]))
    return Figures(builds, differing, {way.name: way.strays() for way in ways})


def show(title: str, figures: Figures, base: str) -> None:
    """All figures of one work, a line a way."""
    print(f"{title}; load {os.getloadavg()[0]:.1f}", flush=True)
    for way, builds in figures.builds.items():
        low, high = min(one.elapsed_s for one in builds), max(one.elapsed_s for one in builds)
        objects = f", {figures.differing[way]} objects differ" if way in figures.differing else ""
        if figures.strays[way]:
            objects += f"; VOID: {figures.strays[way]} calls ran here"
        print(
            f"  {way:13} {figures.seconds(way):7.2f} s ({low:.2f} to {high:.2f})"
            f" {figures.ratio(way, base):5.2f} of {base}, {figures.cpu(way):5.2f} s of the client's CPU{objects}",
            flush=True,
        )


def verdict(what: str, value: float, target: float, at_least: bool = False, unit: str = "") -> None:
    """Whether a target is met."""
    met = value >= target if at_least else value <= target
    print(f"  => {what}: {value:.2f}{unit}, target {'>=' if at_least else '<='} {target:.2f}{unit}: "
          f"{'met' if met else 'NOT met'}", flush=True)  # fmt: skip
