"""Builds of one's own Rakefile on one's own farm, once more and once more, by several policies.

What is measured is what hyperfine would: the command as it stands, in the directory in which it stands, from its start
to its end. Nothing is copied, and nothing is put back that a build changes; a Rakefile has no notion of what is up to
date, so every build makes everything again. Who wants something else before each build (`make clean`, say) names it.

    warm-up: each policy once, not counted ─► snapshot of what was learned
    rounds:  A B │ B A │ A B │ …      each: snapshot ─► prepare ─► rake-p --policy X --fresh ─► seconds, events

What must not differ between builds is what came before them. So all of them have a state directory that is the
bench's own (the user's history is copied there, and neither it nor the ledger is written), each starts with what was
known after the warm-up, and none is answered with a result that a host or a cache has kept. What the hosts themselves
keep (inputs, the speed that they have learned) is as the warm-up left it, and drifts for all alike: see `blocks`.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from msgspec import Struct

from rakefarm import process
from rakefarm.client.experience import state_directory
from rakefarm.client.policy_guard import REPLACED
from rakefarm.lab.blocks import busy_share, in_turn, processor_time
from rakefarm.lab.told import Ending
from rakefarm.process import Exited

STOP_S = 15.0
"""A build that is told to end has ended by then: it needs two seconds at the most."""
LAST_LINES = 20
HISTORY = os.path.join("rakefarm", "history")


class BenchFailed(Exception):
    """A build did not succeed; the text is for the user, `status` what to end with."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Bench(Struct, frozen=True):
    """What is to be run. `options` are words for each build, its Rakefile included; `directory` is where they are
    run, `keep` where their ledger goes in the end."""

    policies: tuple[str, ...]
    repeat: int
    warm_up: int
    options: tuple[str, ...]
    directory: str = "."
    prepare: str = ""
    seed: int = 1
    keep: str = ""


class Run(Struct, frozen=True):
    """One build: its round from 0, seconds from the start of the process to its end; how busy others kept the hosts,
    mean over all samples (None: none was told), and how busy this machine was (both 0 to 1); messages of the protocol;
    hosts that were left out, and actions that were lost and awarded again."""

    policy: str
    round: int
    seconds: float
    hosts_busy: float | None
    machine_busy: float
    messages: int
    hosts: tuple[str, ...]
    left_out: tuple[str, ...]
    retried: int


Done = Callable[[int, int], object]


def run_bench(bench: Bench, environ: Mapping[str, str], done: Done, ending: Ending) -> list[Run]:
    """All builds. Raises BenchFailed with the first that does not succeed, OSError, and Told: whatever ends it, no
    build of ours is left running."""
    total = len(bench.policies) * (bench.warm_up + bench.repeat)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="rakefarm-bench-") as scratch:
        state = os.path.join(scratch, "state")
        os.makedirs(os.path.join(state, "rakefarm"), mode=0o700)
        _copy(os.path.join(state_directory(environ), "history"), os.path.join(state, HISTORY))
        builds = _Builds(
            bench, {**environ, "XDG_STATE_HOME": state, "RAKEFARM_RESULT_CACHE_SIZE": "0"}, scratch, ending
        )
        for number in range(bench.warm_up):
            for index, policy in enumerate(bench.policies):
                done(number * len(bench.policies) + index, total)
                builds.run(policy, -1)
        known = os.path.join(scratch, "known")
        _copy(os.path.join(state, HISTORY), known)
        for number in range(bench.repeat):
            for policy in in_turn(bench.policies, number, bench.seed):
                done(len(bench.policies) * bench.warm_up + len(runs), total)
                _copy(known, os.path.join(state, HISTORY))
                runs.append(builds.run(policy, number))
        done(total, total)
        if bench.keep:
            for name in ("ledger.jsonl", "ledger.jsonl.1"):
                _copy(os.path.join(state, "rakefarm", name), os.path.join(bench.keep, name))
    return runs


def _copy(source: str, target: str) -> None:
    """The file's content, or its absence."""
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        if os.path.exists(target):
            os.unlink(target)


class _Builds:
    def __init__(self, bench: Bench, environ: Mapping[str, str], scratch: str, ending: Ending) -> None:
        self._bench = bench
        self._ending = ending
        self._environ = environ
        self._events = os.path.join(scratch, "events")
        self._said = os.path.join(scratch, "said")

    def run(self, policy: str, number: int) -> Run:
        """One build. Raises BenchFailed."""
        self._prepare()
        # -P: a file in the user's directory must not pass for a module of ours.
        words = [sys.executable, "-P", "-m", "rakefarm.client", *self._bench.options, "--policy", policy, "--fresh"]
        # A round has one seed for all, the next another: what a policy draws is not the same each time.
        seed = self._bench.seed + max(number, 0)
        words += [f"--seed={seed}", "--progress", "none", f"--json={self._events}"]
        before, started_s = processor_time(), time.monotonic()
        with self._ending.held():
            child = process.start_quiet(words, self._environ, self._said)
        try:
            self._ending.check()
            status = child.wait()
        finally:
            if child.poll() is None:  # we are told to end, and it is in a session of its own
                child.terminate()
                if not process.wait_at_most(child, STOP_S):
                    child.kill()
                    child.wait()
        seconds = time.monotonic() - started_s
        if status:
            with open(self._said, encoding="utf-8", errors="backslashreplace") as file:
                said = file.read()
            status = status if status > 0 else 128 - status
            _fail(f"a build with the policy {policy} ended with status {status}", said, status)
        return self._run_of(policy, number, seconds, busy_share(before, processor_time()))

    def _prepare(self) -> None:
        if not self._bench.prepare:
            return
        environment = {os.fsencode(name): os.fsencode(value) for name, value in self._environ.items()}
        command = os.fsencode(self._bench.prepare)
        done = process.run(command, environment, directory=os.fsencode(self._bench.directory))
        said = b"".join([*done.stdout.pieces(), *done.stderr.pieces()]).decode("utf-8", "backslashreplace")
        done.close()
        if done.ending != Exited(0):
            _fail(f"--prepare {self._bench.prepare}: {_ending_text(done.ending)}", said, 1)

    def _run_of(self, policy: str, number: int, seconds: float, machine_busy: float) -> Run:
        shares: list[float] = []
        counts: Counter[str] = Counter()
        hosts: list[str] = []
        left_out: list[str] = []
        messages = 0
        for record in _records(self._events):
            counts[record["event"]] += 1
            match record["event"]:
                case "build_started":
                    hosts = record["hosts"]
                case "host_load":
                    shares.append(min(1.0, record["busy"] / record["cores"]))
                case "host_left_out":
                    left_out.append(record["host"])
                case "build_finished":
                    messages = record["messages"]
                case "notice" if REPLACED in record["text"]:
                    raise BenchFailed(f"{record['text']}, so what was measured is not {policy}", 2)
        return Run(
            policy=policy,
            round=number,
            seconds=seconds,
            hosts_busy=sum(shares) / len(shares) if shares else None,
            machine_busy=machine_busy,
            messages=messages,
            hosts=tuple(hosts),
            left_out=tuple(dict.fromkeys(left_out)),
            retried=counts["action_retried"],
        )


def _fail(text: str, said: str, status: int) -> NoReturn:
    raise BenchFailed("\n".join([text, *said.splitlines()[-LAST_LINES:]]), status)


def _records(path: str) -> Sequence[Mapping[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _ending_text(ending: process.Ending) -> str:
    match ending:
        case Exited(status):
            return f"exit status {status}"
        case process.Signalled(number):
            return f"ended by signal {number}"
        case process.CouldNotStart(text):
            return text
    return "it did not end by itself"
