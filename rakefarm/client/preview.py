"""`-n`: the plan of a build and what each host would ask for now; nothing runs."""

import math
from collections.abc import Mapping, Sequence

from rakefarm.client.board import safe_text
from rakefarm.client.build import local_server
from rakefarm.client.experience import Experiences
from rakefarm.client.farm import Farm
from rakefarm.client.inputs import measure
from rakefarm.client.jobs import describe
from rakefarm.client.places import Places
from rakefarm.client.plain import Channel
from rakefarm.client.plan import Plan, PlannedAction
from rakefarm.client.quotes import Answer, ask_every_host
from rakefarm.client.rakefile_model import Rakefile, locate
from rakefarm.codes import brief
from rakefarm.config import ClientSettings
from rakefarm.embedded import EmbeddedServer
from rakefarm.events import Stream
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import LOCAL, Host
from rakefarm.market.history import History


def preview(
    rakefile: Rakefile,
    hosts: Sequence[Host],
    settings: ClientSettings,
    environ: Mapping[str, str],
    embedded: EmbeddedServer,
    stdout: Channel,
    stderr: Channel,
) -> int:
    """Print plan and quotes to `stdout`, what can't run to `stderr`. Answers the exit status: FARM_FAILED when there is
    an action that no server can run. Raises ViewError."""
    for warning in rakefile.warnings:
        _print(stderr, f"rakefarm: warning: {locate(rakefile.path, warning)}")
    plan = Plan(rakefile)
    needs_farm = any(planned.action.remote for part in plan.sets for planned in part.actions)
    some = (hosts or [Host(LOCAL)]) if needs_farm else []
    places = Places(environ, settings.local_slots, lambda text: _print(stderr, f"rakefarm: warning: {text}"))
    with local_server(some, places, embedded) as local:
        farm = Farm(some, settings, environ, Stream("", []), local)
        history = Experiences(environ).history
        nobody: dict[str, list[PlannedAction]] = {}  # actions that no host bids for, by why
        try:
            farm.start(math.inf)
            for member in farm.members:
                if member.problem:
                    _print(stderr, f"rakefarm: warning: {member.name} left out: {member.problem}")
            for part in plan.sets:
                _print(stdout, f"{part.name}:")
                for planned in part.actions:
                    _print_action(planned, stdout)
                    if planned.action.remote:
                        answers = _print_answers(planned, farm, history, settings.quote_s, stdout)
                        if not any(answer.offer for answer in answers):
                            reasons = [f"{each.host}: {brief(each.reason)}" for each in answers]
                            reason = "; ".join(reasons) or "there are no hosts"
                            nobody.setdefault(reason, []).append(planned)
        finally:
            farm.close()
    for reason, actions in nobody.items():
        which = f"line {actions[0].action.line}" + (f" and {len(actions) - 1} more" if len(actions) > 1 else "")
        _print(stderr, f"rakefarm: error: no server can run {which}: {reason}")
    return int(ExitStatus.FARM_FAILED if nobody else ExitStatus.OK)


def _print(channel: Channel, text: str) -> None:
    channel.write(channel.encode(safe_text(text) + "\n"))


def _print_action(planned: PlannedAction, stdout: Channel) -> None:
    action = planned.action
    place = "remote" if action.remote else "local"
    line = f"  {planned.number:>4}  line {action.line:<5} {place:<7} {action.command}"
    _print(stdout, line)


def _print_answers(
    planned: PlannedAction, farm: Farm, history: History, quote_s: float, stdout: Channel
) -> list[Answer]:
    measured = measure(planned.action.requires)
    if measured.missing is not None:
        _print(stdout, f"        missing required file {measured.missing} (an earlier set may make it)")
    answers = ask_every_host(farm, describe(planned, measured, history).task, quote_s)
    for answer in answers:
        if answer.offer is None:
            if answer.asked:  # else it has been told
                _print(stdout, f"        {answer.host:<24} {answer.refusal}")
            continue
        terms = " + ".join(f"{term.name} {term.value:.3g}" for term in answer.offer.terms)
        _print(stdout, f"        {answer.host:<24} price {answer.offer.price:.3g} = {terms}")
    return answers
