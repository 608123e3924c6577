"""`rakefarm breakeven`: what each host is worth from here, and which actions of a Rakefile are worth sending."""

import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from msgspec import Struct, to_builtins

from rakefarm.client.board import safe_text
from rakefarm.client.credentials import load_credentials
from rakefarm.client.experience import Experiences
from rakefarm.client.inputs import measure
from rakefarm.client.jobs import describe
from rakefarm.client.link import connect
from rakefarm.client.plan import Plan
from rakefarm.client.rakefile_model import Rakefile
from rakefarm.client.reach import HostFailed
from rakefarm.client.tables import Sheet, draw_tables
from rakefarm.client.trials import NotTried, Trial, try_host
from rakefarm.config import ClientSettings
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import Host
from rakefarm.market.break_even import Build, Client, Hosts, least_work_s, local_s, remote_s
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError

MANY = 200
"""Actions of the build that the rule for one host is made for."""
COLD_BYTES = 100_000.0
START_S = 0.1
"""The client's own start: see docs/report.md."""
OUTPUT_BYTES = 20_000.0
JOIN_S = 60.0


class Verdict(Struct, frozen=True):
    """An action of the Rakefile: its work (reference seconds, `sure` when it was seen before), its input bytes, and
    from how much work on it is worth sending when its inputs are there already, and when they are not."""

    action: int
    line: int
    command: str
    work_s: float
    sure: bool
    input_bytes: int
    least_warm_s: float
    least_cold_s: float

    @property
    def advice(self) -> str:
        """One word and why."""
        if self.work_s >= self.least_cold_s:
            return "send"
        return "send once its inputs are there" if self.work_s >= self.least_warm_s else "keep here"


class _Tried(Struct):
    """One host: what was found, or what is wrong."""

    host: str
    trial: Trial | None = None
    problem: str = ""


def breakeven(
    hosts: Sequence[Host],
    rakefile: Rakefile | None,
    settings: ClientSettings,
    environ: Mapping[str, str],
    *,
    seconds: float,
    as_json: bool,
    stdout: TextIO,
) -> int:
    """Try the hosts, one after the other, for so many seconds in all, and print; answers the exit status: 0 when one
    could be tried. Raises ConfigError."""
    credentials = load_credentials(settings, hosts, environ)
    found = [_Tried(host.address) for host in hosts]
    for host, each in zip(hosts, found, strict=True):
        # In a thread of its own, so that one that goes on saying that it lives does not hold us for ever.
        budget_s = seconds / len(hosts)
        thread = threading.Thread(target=_try, args=(host, settings, environ, credentials, budget_s, each), daemon=True)
        thread.start()
        thread.join(budget_s + JOIN_S)
        if thread.is_alive():
            each.problem = "its trial did not end"
    trials = [each.trial for each in found if each.trial is not None]
    client = Client(max(1, len(os.sched_getaffinity(0))))
    verdicts = _judge(rakefile, trials, client, environ) if rakefile is not None and trials else []
    if as_json:
        _print_json(found, verdicts, client, stdout)
    else:
        _print(found, verdicts, client, environ, stdout)
    return int(ExitStatus.OK if trials else ExitStatus.FARM_FAILED)


def _try(
    host: Host, settings: ClientSettings, environ: Mapping[str, str], credentials: Any, seconds: float, found: _Tried
) -> None:
    try:
        link = connect(host, environ, settings.connect_s, credentials)
    except HostFailed as error:
        found.problem = str(error)
        return
    try:
        found.trial = try_host(host, link, seconds)
    except (NotTried, Lost, ProtocolError) as error:
        found.problem = str(error) if isinstance(error, NotTried) else explain(error)
    except OSError as error:
        found.problem = f"here: {error.strerror or error}"
    finally:
        link.close()


def _together(trials: Sequence[Trial]) -> tuple[Hosts, Trial]:
    """All hosts as the model has them, and the one whose costs stand for all: the middle one by overhead."""
    slots = sum(trial.slots for trial in trials)
    speed = sum(trial.slots * trial.speed for trial in trials) / slots
    middle = sorted(trials, key=lambda trial: trial.overhead_s)[len(trials) // 2]
    return Hosts(slots, speed, middle.round_trip_s, middle.rate_bps), middle


def _judge(rakefile: Rakefile, trials: Sequence[Trial], client: Client, environ: Mapping[str, str]) -> list[Verdict]:
    hosts, middle = _together(trials)
    costs = middle.costs(0.0)  # the build is started in any case
    history = Experiences(environ).history
    verdicts = []
    for part in Plan(rakefile).sets:
        remote = [planned for planned in part.actions if planned.action.remote]
        for planned in remote:
            job = describe(planned, measure(planned.action.requires), history)
            least = [
                least_work_s(Build(len(remote), 0.0, size, OUTPUT_BYTES), client, hosts, costs)
                for size in (0.0, float(job.task.input_bytes))
            ]
            verdicts.append(
                Verdict(
                    planned.number,
                    planned.action.line,
                    planned.action.command,
                    job.market.work_s,
                    job.market.known,
                    job.task.input_bytes,
                    *least,
                )
            )
    return verdicts


# --- for people ---------------------------------------------------------------------------------------------


def _print(
    found: Sequence[_Tried],
    verdicts: Sequence[Verdict],
    client: Client,
    environ: Mapping[str, str],
    stdout: TextIO,
) -> None:
    sheet = Sheet(
        ("host", "slots", "speed", "round trip", "Mbit/s", "overhead", "worth it, warm", "worth it, 100 kB cold")
    )
    for each in found:
        trial = each.trial
        if trial is None:
            continue
        costs = trial.costs(START_S)
        least = [
            least_work_s(Build(MANY, 0.0, size, OUTPUT_BYTES), client, trial.hosts, costs) for size in (0.0, COLD_BYTES)
        ]
        sheet.rows.append(
            (
                safe_text(each.host),
                str(trial.slots),
                f"{trial.speed:.2f}",
                _time(trial.round_trip_s),
                f"{trial.rate_bps / 1e6:.0f}",
                _time(trial.overhead_s),
                *[_time(value) for value in least],
            )
        )
    if sheet.rows:
        draw_tables([sheet], environ, stdout)
        stdout.write(
            f"A build of {MANY} actions is sooner done there alone than on the {client.cores} cores here\n"
            "when each takes at least so long: its inputs being there already (warm), or\n"
            "still to be sent (cold). This machine counts as of speed 1.\n"
        )
    for each in found:
        if each.problem:
            stdout.write(f"{safe_text(each.host)}: {safe_text(each.problem)[:400]}\n")
    if verdicts:
        _print_verdicts(verdicts, [each.trial for each in found if each.trial], client, environ, stdout)


def _print_verdicts(
    verdicts: Sequence[Verdict], trials: Sequence[Trial], client: Client, environ: Mapping[str, str], stdout: TextIO
) -> None:
    sheet = Sheet(("action", "line", "takes", "input", "worth it from", "advice", "command"), words=frozenset({5, 6}))
    for each in verdicts:
        takes = f"{_time(each.work_s)}{'' if each.sure else '?'}"
        size = f"{each.input_bytes / 1000:.0f} kB"
        sheet.rows.append(
            (
                str(each.action),
                str(each.line),
                takes,
                size,
                _time(each.least_cold_s),
                each.advice,
                safe_text(each.command)[:60],
            )
        )
    draw_tables([sheet], environ, stdout)
    sent = sum(each.advice != "keep here" for each in verdicts)
    hosts, middle = _together(trials)
    work_s = sum(each.work_s for each in verdicts) / len(verdicts)
    build = Build(len(verdicts), work_s, sum(each.input_bytes for each in verdicts) / len(verdicts), OUTPUT_BYTES)
    warm = Build(build.actions, build.work_s, 0.0, OUTPUT_BYTES)
    here_s = local_s(build, client)
    costs = middle.costs(START_S)
    cold_s, warm_s = [remote_s(each, client, hosts, costs) for each in (build, warm)]
    stdout.write(
        f"{sent} of {len(verdicts)} remote actions are worth sending. All of them: here {_time(here_s)}, on the farm"
        f" {_time(cold_s)}, {_time(warm_s)} once inputs are there.\n"
    )
    if not all(each.sure for each in verdicts):
        stdout.write("?: never seen before, so only guessed by the kind of command; build once to know.\n")


def _time(seconds: float) -> str:
    if seconds == math.inf:
        return "never"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s"


def _print_json(found: Sequence[_Tried], verdicts: Sequence[Verdict], client: Client, stdout: TextIO) -> None:
    told = {
        "measured_at": time.time(),
        "cores_here": client.cores,
        "hosts": [
            {"host": each.host, "problem": each.problem or None, **(to_builtins(each.trial) if each.trial else {})}
            for each in found
        ],
        "actions": [
            {**{name: _finite(value) for name, value in to_builtins(each).items()}, "advice": each.advice}
            for each in verdicts
        ],
    }
    stdout.write(json.dumps(told, indent=2, allow_nan=False) + "\n")


def _finite(value: object) -> object:
    """JSON has no infinity: null stands for never."""
    return None if value == math.inf else value
