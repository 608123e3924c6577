"""`-n`: the plan of a build and what each host would ask for now; nothing runs."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from rakefarm.client.build import EmbeddedFarm
from rakefarm.client.experience import Experiences
from rakefarm.client.farm import Farm
from rakefarm.client.inputs import measure
from rakefarm.client.jobs import describe
from rakefarm.client.plan import Plan, PlannedAction
from rakefarm.client.quotes import ask_every_host
from rakefarm.client.rakefile_model import Rakefile
from rakefarm.config import ClientSettings
from rakefarm.events import Stream
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import Host
from rakefarm.market.history import History


def preview(
    rakefile: Rakefile,
    hosts: Sequence[Host],
    settings: ClientSettings,
    environ: Mapping[str, str],
    embedded: EmbeddedFarm,
) -> int:
    """Print plan and quotes to standard output; answers the exit status."""
    plan = Plan(rakefile)
    needs_farm = any(planned.action.remote for part in plan.sets for planned in part.actions)
    own = embedded() if needs_farm and not hosts else nullcontext()
    with own as host:
        stream = Stream("", [])
        farm = Farm([host] if host else hosts if needs_farm else [], settings, environ, stream)
        history = Experiences(environ).history
        try:
            farm.start()
            for part in plan.sets:
                print(f"{part.name}:")
                for planned in part.actions:
                    _print_action(planned)
                    if planned.action.remote:
                        _print_answers(planned, farm, history, settings.quote_s)
        finally:
            farm.close()
    return int(ExitStatus.OK)


def _print_action(planned: PlannedAction) -> None:
    action = planned.action
    place = "remote" if action.remote else "local"
    line = f"  {planned.number:>4}  line {action.line:<5} {place:<7} {action.command}"
    print(line.encode(errors="backslashreplace").decode(errors="replace"))


def _print_answers(planned: PlannedAction, farm: Farm, history: History, quote_s: float) -> None:
    measured = measure(planned.action.requires)
    if measured.missing is not None:
        print(f"        missing required file {measured.missing} (an earlier set may make it)")
    answers = ask_every_host(farm, describe(planned, measured, history).task, quote_s)
    for answer in answers:
        if answer.offer is None:
            print(f"        {answer.host:<24} declines: {answer.reason}")
            continue
        terms = " + ".join(f"{term.name} {term.value:.3g}" for term in answer.offer.terms)
        print(f"        {answer.host:<24} price {answer.offer.price:.3g} = {terms}")
    if not any(answer.offer for answer in answers):
        why = "; ".join(f"{answer.host}: {answer.reason}" for answer in answers) or "there are no hosts"
        print(f"        no server can run it: {why}", file=sys.stderr)
