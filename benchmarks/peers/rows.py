"""The rows of the comparison, each with its target, and whether it is met in this run."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import psutil
from cable.link import Conditions, NoNetwork, link, measure_rate, measure_round_trip
from peers import ways
from peers.confinement import share_of_core
from peers.counter import counted
from peers.icecream import icecream
from peers.measures import build, measure, show, verdict
from peers.ways import PLAIN, Absent, Way
from peers.works import NotFetched, Work, empty, leveldb, lua, many_headers

LARGE = ("icecream", "pump")
"""Peers that may take minutes for a build, and can be left out."""
SHARE = 0.2
RTT_S, RATE_BPS = 0.001, 1e9


@dataclass(frozen=True)
class Bench:
    """Where everything of a run is, and how many rounds each row has."""

    directory: str
    rounds: int
    without: frozenset[str] = frozenset()
    """Peers that are not measured beside us, of those in LARGE."""

    def place(self, name: str) -> str:
        """A fresh directory."""
        path = os.path.join(self.directory, name)
        os.makedirs(path)
        return path

    @property
    def kept(self) -> str:
        """Where objects to compare with are."""
        return os.path.join(self.directory, "kept")


Row = Callable[[Bench], None]


def _with(stack: contextlib.ExitStack, *contexts: contextlib.AbstractContextManager[Way]) -> list[Way]:
    """Those ways that can be had; of the others is said why not."""
    entered = []
    for context in contexts:
        try:
            entered.append(stack.enter_context(context))
        except Absent as reason:
            print(f"  left out: {reason}", flush=True)
    return entered


@contextlib.contextmanager
def _loopback(bench: Bench, name: str, pumped: bool = False) -> Iterator[list[Way]]:
    """Here, rakefarm and distcc, each with one server of two slots on loopback."""
    place = bench.place(name)

    def pumps(daemon: str) -> list[contextlib.AbstractContextManager[Way]]:
        return [ways.pump(place, [daemon])] if pumped and "pump" not in bench.without else []

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ways.rakeserver(place, 2))
        made = [PLAIN, stack.enter_context(ways.rakefarm(place, [server]))]
        try:
            daemon = stack.enter_context(ways.distccd(2))
            made += _with(stack, ways.distcc(place, [daemon]), *pumps(daemon))
        except Absent as reason:
            print(f"  left out: {reason}", flush=True)
        if "icecream" not in bench.without:
            made += _with(stack, icecream(2))
        yield made


def whole_build(bench: Bench) -> None:
    """Whole build, warm store, one server on loopback with two slots; and the client's CPU."""
    place = bench.place("projects")
    projects: list[Work] = []
    for fetch in (lua, leveldb):
        try:
            projects.append(fetch(place))
        except NotFetched as reason:
            print(f"  left out: {reason}", flush=True)
    with _loopback(bench, "whole", pumped=True) as made:
        for work in projects:
            figures = measure(work, made, 2, bench.rounds, bench.kept)
            show(f"whole build of {work.name}, {len(work.objects)} files, -j2", figures, "local")
            ours = figures.ratio("rakefarm", "local")
            verdict("time over local", ours, 1.05)
            if "distcc" in figures.builds:
                most = 0.4 * (figures.ratio("distcc", "local") - 1)
                verdict("overhead, of 0.4 of distcc's", ours - 1, most)
                verdict("client's CPU over distcc's", figures.cpu_ratio("rakefarm", "distcc"), 0.5)


def many_empty(bench: Bench) -> None:
    """200 empty compiles, -j2."""
    work = empty(bench.place("many-empty"), 200)
    with _loopback(bench, "many-empty-ways") as made:
        figures = measure(work, made, 2, bench.rounds, bench.kept)
        show("200 empty compiles, -j2", figures, "local")
        verdict("time over local", figures.ratio("rakefarm", "local"), 1.25)


def one_by_one(bench: Bench) -> None:
    """20 empty compiles one after another."""
    work = empty(bench.place("few-empty"), 20)
    with _loopback(bench, "few-empty-ways") as made, contextlib.ExitStack() as stack:
        made += _with(stack, ways.ccache(bench.directory, cold=True))
        figures = measure(work, made, 1, 2 * bench.rounds + 1, bench.kept)
        show("20 empty compiles, one after another", figures, "local")
        verdict("time over local", figures.ratio("rakefarm", "local"), 1.4)


def weak_client(bench: Bench) -> None:
    """A client with 20 % of one core, the server on the other core."""
    if (os.cpu_count() or 1) < 2:
        raise Absent("a weak client and its server need two cores")
    place = bench.place("weak")
    work = lua(place)
    with contextlib.ExitStack() as stack:
        weak = stack.enter_context(share_of_core(SHARE, 0))
        strong = "taskset", "-c", "1"
        server = stack.enter_context(ways.rakeserver(place, 1, strong))
        alone = replace(PLAIN, name="server's core", around=strong)
        made = [alone, replace(PLAIN, name="local, weak", around=weak)]
        made.append(stack.enter_context(ways.rakefarm(place, [server], weak)))
        with contextlib.suppress(Absent):
            daemon = stack.enter_context(ways.distccd(1, strong))
            made += _with(stack, ways.distcc(place, [daemon], weak))
        figures = measure(work, made, {way.name: 1 if way is alone else 2 for way in made}, bench.rounds, bench.kept)
        show(f"weak client ({SHARE:.0%} of a core by cgroup), Lua, server on the other core", figures, "server's core")
        verdict("time over the server's core alone", figures.ratio("rakefarm", "server's core"), 1.08)


def two_hosts(bench: Bench) -> None:
    """Two hosts of one core each, over the ideal local -j2."""
    if (os.cpu_count() or 1) < 2:
        raise Absent("two hosts of one core need two cores")
    place = bench.place("two")
    work = lua(place)
    with contextlib.ExitStack() as stack:
        pins = [("taskset", "-c", str(core)) for core in (0, 1)]
        hosts = [stack.enter_context(ways.rakeserver(place, 1, pin)) for pin in pins]
        made = [PLAIN, stack.enter_context(ways.rakefarm(place, hosts))]
        with contextlib.suppress(Absent):
            daemons = [stack.enter_context(ways.distccd(1, pin)) for pin in pins]
            made += _with(stack, ways.distcc(place, daemons))
        jobs = {"local": 2, "rakefarm": 4, "distcc": 4}
        figures = measure(work, made, jobs, bench.rounds, bench.kept)
        show("two one-core hosts, Lua, local -j2, others -j4", figures, "local")
        verdict("time over local -j2", figures.ratio("rakefarm", "local"), 1.06)


def far_away(bench: Bench) -> None:
    """A round trip of 1 ms at 1 Gbit/s: 20 empty compiles one after another."""
    place = bench.place("far")
    work = empty(place, 20)
    with contextlib.ExitStack() as stack:
        try:
            wire = stack.enter_context(link())
            wire.set(Conditions(round_trip_s=RTT_S, rate_bps=RATE_BPS))
        except NoNetwork as reason:
            raise Absent(str(reason)) from reason
        print(f"  relay: round trip {measure_round_trip(wire) * 1e3:.2f} ms, {measure_rate(wire) / 1e9:.2f} Gbit/s")
        here, there = tuple(wire.here.command([])), tuple(wire.there.command([]))
        server = stack.enter_context(ways.rakeserver(place, 2, there, wire.there.address))
        local = replace(PLAIN, around=here)
        made = [local, stack.enter_context(ways.rakefarm(place, [server], here))]
        with contextlib.suppress(Absent):
            daemon = stack.enter_context(ways.distccd(2, there, wire.there.address))
            made += _with(stack, ways.distcc(place, [daemon], here))
        figures = measure(work, made, 1, bench.rounds, bench.kept)
        show("1 ms away over a relay (no netem), 20 empty compiles", figures, "local")
        verdict("time over local", figures.ratio("rakefarm", "local"), 2.0)


def cached(bench: Bench) -> None:
    """Everything in the result cache: rebuild after `make clean`."""
    place = bench.place("cached")
    work = lua(place)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ways.rakeserver(place, 2))
        made = [PLAIN, stack.enter_context(ways.rakefarm(place, [server], cache=True))]
        made += _with(stack, ways.ccache(place), ways.sccache(place))
        figures = measure(work, made, 2, 2 * bench.rounds + 1, bench.kept)
        show("everything cached, Lua, -j2", figures, "local")
        for name, target in (("ccache", 1.0), ("sccache", 1.5)):
            if name in figures.builds:
                verdict(f"speed over {name}'s", figures.ratio(name, "rakefarm"), target, at_least=True)


def second_build(bench: Bench) -> None:
    """Bytes sent by the second build, after one header changed."""
    place = bench.place("bytes")
    work = lua(place)
    header = os.path.join(work.directory, "lobject.h")
    with contextlib.ExitStack() as stack:
        counter = stack.enter_context(counted(stack.enter_context(ways.rakeserver(place, 2))))
        made = [(stack.enter_context(ways.rakefarm(place, [f"127.0.0.1:{counter.port}"])), counter)]
        with contextlib.suppress(Absent):
            daemon, _, slots = stack.enter_context(ways.distccd(2)).partition("/")
            relay = stack.enter_context(counted(daemon))
            made += [(way, relay) for way in _with(stack, ways.distcc(place, [f"127.0.0.1:{relay.port}/{slots}"]))]
        for way, bytes_of in made:
            sent = []
            for change in (b"", b"", b"\n/* changed for %s */\n" % way.name.encode()):
                with open(header, "ab") as file:
                    file.write(change)
                bytes_of.take()
                build(way, work, 2)
                sent.append(bytes_of.take()[0])
            size = os.path.getsize(header)
            print(f"{way.name}: bytes sent by the first build {sent[0]}, again {sent[1]}", flush=True)
            print(f"  with one header of {size} bytes changed {sent[2]}", flush=True)
            if way.name == "rakefarm":
                # A digest more or less costs nothing: paths and digests of all inputs travel with each compile.
                verdict("bytes more than with nothing changed, over the header's size", (sent[2] - sent[1]) / size, 1.1)


def memory(bench: Bench) -> None:
    """The helper's memory with 10,000 files in its caches."""
    place = bench.place("memory")
    work = many_headers(place, 100, 100)
    with ways.rakeserver(place, 2) as server, ways.rakefarm(place, [server]) as way:
        build(way, work, 2)
        (pid,) = way.daemons()
        used = psutil.Process(pid).memory_full_info()
        print(f"helper with {work.name}: {used.rss >> 20} MiB resident, {used.pss >> 20} MiB proportional", flush=True)
        verdict("helper's memory", used.rss / 1e6, 150, unit=" MB")


ROWS: dict[str, Row] = {
    "whole": whole_build,
    "empty": many_empty,
    "single": one_by_one,
    "weak": weak_client,
    "two": two_hosts,
    "far": far_away,
    "cached": cached,
    "bytes": second_build,
    "memory": memory,
}


def run(names: Sequence[str], bench: Bench) -> None:
    """The rows of these names; one that can't be measured here says why."""
    for name in names:
        print(f"--- {name}: {' '.join((ROWS[name].__doc__ or '').split())}", flush=True)
        try:
            ROWS[name](bench)
        except (Absent, NotFetched) as reason:
            print(f"  not measured: {reason}", flush=True)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"").decode(errors="replace")[-1000:]
            print(f"  not measured: {' '.join(error.cmd)}: exit {error.returncode}\n{said}", flush=True)
