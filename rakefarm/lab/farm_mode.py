"""Runs of an experiment on real servers: the same scenario, seeds and measures as in the simulator.

Clients are real as well. Each waits, connected, at a pipe in a first set of its own, so that all begin at one moment.
Runs go one after the other, in rounds of all policies, two of which are a block (A/B/B/A, see `blocks`), so that what
drifts on the machine does not favour one; how busy it was goes into each row.
"""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from rakefarm import process
from rakefarm.lab.attempt import Attempt
from rakefarm.lab.blocks import busy_share, in_turn, processor_time
from rakefarm.lab.draw import ActionSpec, ClientSpec, Drawn, LabError, draw
from rakefarm.lab.emulation import EmulatedFarm, bare_environment, compile_work, refuse
from rakefarm.lab.experiment import Done, head, keep_part, part_path
from rakefarm.lab.measures import measure, refer
from rakefarm.lab.plan_file import RunSpec
from rakefarm.lab.world import Outcome
from rakefarm.market.history import Experience

if TYPE_CHECKING:
    import subprocess

START_S = 30.0
PATIENCE_S, PATIENCE = 60.0, 20.0
"""A client that takes longer than this and so many times the bound is ended; what it had not done is lost."""
Record = Mapping[str, Any]


def run_on_farm(runs: Sequence[RunSpec], directory: str, done: Done) -> None:
    """What of these runs is not there yet, one at a time. Raises LabError."""
    for run in runs:
        refuse(run.cell.scenario)
    with tempfile.TemporaryDirectory(prefix="rakefarm-lab-") as scratch:
        os.chmod(scratch, 0o711)  # nosec B103 # commands find their program below it, whatever their uids
        program = compile_work(scratch)
        finished = 0
        rounds = groupby(runs, key=lambda run: (run.seed, run.repetition, run.cell.factors))
        for number, (_, round_of_all) in enumerate(rounds):
            for run in in_turn(list(round_of_all), number, runs[0].seed):
                done(finished, len(runs))
                if not os.path.exists(part_path(directory, run.number)):
                    _run_part(run, directory, program, scratch)
                finished += 1
        done(finished, len(runs))


def _run_part(run: RunSpec, directory: str, program: str, scratch: str) -> None:
    drawn = draw(run.cell.scenario, run.seed)
    outcome, busy = run_real(drawn, run.policy, program, scratch)
    row = {**head(run), "machine_busy": round(busy, 3), **structs.asdict(measure(drawn, refer(drawn), outcome))}
    keep_part(run, directory, row, [structs.asdict(attempt) for attempt in outcome.attempts])


def run_real(drawn: Drawn, policy: str, program: str, scratch: str) -> tuple[Outcome, float]:
    """One build by all clients on fresh servers, and how busy this machine was (0 to 1). Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=scratch) as place:
        os.chmod(place, 0o711)  # nosec B103 # the same
        with EmulatedFarm(drawn.hosts, program, place, drawn.scenario.sample_s) as farm:
            directories = [_write_client(place, number, client, drawn) for number, client in enumerate(drawn.clients)]
            patience_s = PATIENCE_S + PATIENCE * refer(drawn).bound_s
            started_s, busy = _build(farm, directories, policy, drawn, patience_s)
            records = [_events(directory) for directory in directories]
            return _outcome(drawn, farm, records, started_s), busy


def _write_client(place: str, number: int, client: ClientSpec, drawn: Drawn) -> str:
    """Its directory: a Rakefile, the pipe at which its first set waits, and what it knows of former builds. A command's
    signature leaves directories out, so `work 1.5/tool-3 12/` is known as `work tool-3`."""
    directory = os.path.join(place, f"client{number}")
    os.makedirs(os.path.join(directory, "state", "rakefarm"))
    os.mkfifo(os.path.join(directory, "start"))
    perfect = drawn.scenario.history == "perfect"
    known = [(f"work {signature}", seen) for signature, seen in client.history]
    with open(os.path.join(directory, "Rakefile"), "w", encoding="utf-8") as file:
        file.write("start:\n\tcat start\n")
        tag = 0
        for index, actions in enumerate(client.sets):
            file.write(f"set{index}:\n")
            for action in actions:
                tag += 1
                signature = f"action-{tag}" if perfect else action.signature
                if perfect:
                    known.append((f"work {signature}", Experience(action.work_s, 0, 0, 3)))
                file.write(f"\tremote-work {action.work_s:.4f}/{signature} {tag}/\n\t\trequires\n")
                file.write("\t\trepeatable\n" if drawn.scenario.repeatable else "")
    with open(os.path.join(directory, "state", "rakefarm", "history"), "wb") as history:
        history.write(msgspec.msgpack.encode(known))
    return directory


def _build(
    farm: EmulatedFarm, directories: Sequence[str], policy: str, drawn: Drawn, patience_s: float
) -> tuple[float, float]:
    """Build in all directories; answers when it began (monotonic seconds), and how busy the machine was."""
    path, _, attribute = policy.rpartition(":")
    name = f"{os.path.abspath(path)}:{attribute}" if path.endswith(".py") else policy
    clients: list[subprocess.Popen[bytes]] = []
    try:
        for number, directory in enumerate(directories):
            options = ["-C", directory, "--hosts", ",".join(farm.addresses), "--progress", "none", "--json=events"]
            options += ["--seed", str(1000 * drawn.seed + number)]
            state = {"XDG_STATE_HOME": f"{directory}/state", "XDG_CONFIG_HOME": f"{directory}/configuration"}
            words = [sys.executable, "-m", "rakefarm.client", *options, "--policy", name]
            variables = {**bare_environment(os.environ), **state}
            clients.append(process.start_background(words, variables, error=os.path.join(directory, "said")))
        started_s, before = _start_together(directories, clients, drawn.clients), processor_time()
        farm.begin()
        for client in clients:
            process.wait_at_most(client, max(0.0, started_s + patience_s - time.monotonic()))
        return started_s, busy_share(before, processor_time())
    finally:
        for client in clients:
            client.kill()
            client.wait()
            for stream in (client.stdin, client.stdout):
                if stream is not None:
                    stream.close()


def _start_together(
    directories: Sequence[str], clients: Sequence["subprocess.Popen[bytes]"], specs: Sequence[ClientSpec]
) -> float:
    """Let the clients go, each at its time, when all of them wait. Raises LabError when one doesn't."""
    deadline = time.monotonic() + START_S
    pipes: list[int] = []
    try:
        for directory, client in zip(directories, clients, strict=True):
            while True:
                try:  # refused until the client has opened its end
                    pipes.append(os.open(os.path.join(directory, "start"), os.O_WRONLY | os.O_NONBLOCK))
                    break
                except OSError as error:
                    if client.poll() is not None or time.monotonic() > deadline:
                        raise LabError(f"a client did not start on the emulated farm: {client.poll()}") from error
                    time.sleep(0.005)
        started_s = time.monotonic()
        for spec in specs:
            time.sleep(max(0.0, started_s + spec.arrives_s - time.monotonic()))
            os.close(pipes.pop(0))
        return started_s
    finally:
        for pipe in pipes:
            os.close(pipe)


def _events(directory: str) -> list[Record]:
    """A client's events; a line that was cut off is left out."""
    try:
        with open(os.path.join(directory, "events"), encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
    except OSError as error:
        raise LabError(f"a client of the emulated farm told nothing: {error.strerror}") from error


def _outcome(drawn: Drawn, farm: EmulatedFarm, clients: Sequence[Sequence[Record]], started_s: float) -> Outcome:
    attempts: list[Attempt] = []
    ended_s, messages, lost = [], 0, 0
    for number, (records, spec) in enumerate(zip(clients, drawn.clients, strict=True)):
        actions = [(index, action) for index, each in enumerate(spec.sets) for action in each]
        mine = _attempts(number, records, actions, farm, started_s)
        attempts += mine
        lost += len(actions) - len({attempt.action for attempt in mine if attempt.outcome == "succeeded"})
        last: Record = records[-1] if records else {"event": ""}
        whole = last["event"] == "build_finished"
        ended_s.append(last["time_s"] - started_s if whole else math.inf)
        messages += last.get("messages", 0) if whole else 0
    _mark_herds(attempts, drawn)
    return Outcome(
        attempts=tuple(attempts),
        ended_s=tuple(ended_s),
        messages=messages,
        beats=0,
        copies=sum(attempt.backup for attempt in attempts),
        lost=lost,
        events=sum(len(records) for records in clients),
        planning_s=0.0,
        slowest_s=0.0,
    )


def _attempts(
    client: int,
    records: Sequence[Record],
    actions: Sequence[tuple[int, ActionSpec]],
    farm: EmulatedFarm,
    started_s: float,
) -> list[Attempt]:
    """The awards that a client's events tell of."""
    tags: dict[int, int] = {}
    flying: dict[tuple[int, str], Attempt] = {}
    found = []

    def end(action: int, host: str, at_s: float, outcome: str, ran_s: float = -1.0) -> None:
        attempt = flying.pop((action, host), None)
        if attempt is not None:
            attempt.told_s = attempt.ended_s = at_s - started_s
            attempt.outcome = outcome
            attempt.started_s = attempt.ended_s - ran_s if ran_s >= 0 else -1.0

    for record in records:
        action, host, at_s = record.get("action", 0), record.get("host", ""), record.get("time_s", 0.0)
        match record["event"]:
            case "action_queued" if record["command"].startswith("work "):
                tags[action] = int(record["command"].split()[-1].rstrip("/"))
            case "action_placed" if action in tags and host in farm.addresses:
                index, spec = actions[tags[action] - 1]
                attempt = Attempt(
                    client=client,
                    action=tags[action],
                    set=index,
                    signature=spec.signature,
                    host=farm.name_of(host),
                    work_s=spec.work_s,
                    known_s=0.0,
                    placed_s=at_s - started_s,
                    price=record.get("price") or 0.0,
                    bid_s=record.get("seconds") or 0.0,
                    backup=bool(record.get("backup")),
                    herded=False,
                    sample_age_s=0.0,
                )
                flying[action, host] = attempt
                found.append(attempt)
            case "action_retried":
                end(action, host, at_s, "lost")
            case "copy_ended":
                end(action, host, at_s, "superseded")
            case "action_finished":
                end(action, host, at_s, record["outcome"], record.get("ran_s", -1.0))
    return found


def _mark_herds(attempts: Sequence[Attempt], drawn: Drawn) -> None:
    """Which awards went to a full host while another had a free slot: in the order in which they were made."""
    there: dict[str, list[Attempt]] = {host.name: [] for host in drawn.hosts}
    slots = {host.name: host.slots for host in drawn.hosts}
    for attempt in sorted(attempts, key=lambda each: each.placed_s):
        for name, mine in there.items():
            there[name] = [each for each in mine if each.ended_s < 0 or each.ended_s > attempt.placed_s]
        alive = [host.name for host in drawn.hosts if host.dead_at_s > attempt.placed_s]
        free = any(len(there[name]) < slots[name] for name in alive)
        attempt.herded = len(there[attempt.host]) >= slots[attempt.host] and free
        there[attempt.host].append(attempt)
