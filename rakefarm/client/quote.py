"""`rakefarm quote COMMAND`: what every host would ask for it now, cheapest first, or why it would not run it."""

import json
import math
import sys
from collections.abc import Mapping, Sequence

from rakefarm import standard
from rakefarm.client.build import local_server
from rakefarm.client.experience import Experiences
from rakefarm.client.farm import Farm
from rakefarm.client.inputs import measure
from rakefarm.client.jobs import describe
from rakefarm.client.places import Places
from rakefarm.client.plan import PlannedAction
from rakefarm.client.quotes import Answer, ask_every_host
from rakefarm.client.rakefile_model import Action
from rakefarm.config import ClientSettings, ConfigError
from rakefarm.embedded import EmbeddedServer
from rakefarm.events import Stream
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import Host


def quote(
    command: str,
    requires: Sequence[str],
    needs: Sequence[str],
    hosts: Sequence[Host],
    settings: ClientSettings,
    environ: Mapping[str, str],
    embedded: EmbeddedServer,
    as_json: bool,
) -> int:
    """Ask and print; answers the exit status: 0 when at least one host bids. Raises ConfigError."""
    measured = measure(requires)
    if measured.missing is not None:
        raise ConfigError(f"--requires {measured.missing}: no such file")
    pairs = tuple([(key, value) for key, _, value in (need.partition("=") for need in needs)])
    action = Action(line=1, command=command, remote=True, requires=tuple(requires), needs=pairs)
    job = describe(PlannedAction(1, "quote", action), measured, Experiences(environ).history)
    places = Places(environ, settings.local_slots, lambda text: standard.say(f"rakefarm: warning: {text}"))
    with local_server(hosts, places, embedded) as local:
        farm = Farm(hosts, settings, environ, Stream("", []), local)
        try:
            farm.start(math.inf)
            answers = ask_every_host(farm, job.task, settings.quote_s)
        finally:
            farm.close()
    _print_json(answers) if as_json else _print_lines(answers)
    return int(ExitStatus.OK if any(answer.offer for answer in answers) else ExitStatus.FARM_FAILED)


def _print_json(answers: Sequence[Answer]) -> None:
    records = [
        {
            "host": answer.host,
            "price": answer.offer.price if answer.offer else None,
            "seconds": answer.offer.seconds if answer.offer else None,
            "terms": {term.name: term.value for term in answer.offer.terms} if answer.offer else {},
            "declined": answer.reason or None if answer.asked else None,
            "problem": None if answer.asked else answer.reason,
        }
        for answer in answers
    ]
    json.dump(records, sys.stdout, indent=2)
    print()


def _print_lines(answers: Sequence[Answer]) -> None:
    width = max((len(answer.host) for answer in answers), default=0)
    for answer in answers:
        name = f"{answer.host:<{width}}"
        if answer.offer is None:
            print(f"{name}  {answer.refusal}")
            continue
        offer = answer.offer
        terms = " + ".join(f"{term.name} {term.value:.3g}" for term in offer.terms)
        free = f"{offer.curve.free_slots} of {offer.curve.slots} slots free"
        print(
            f"{name}  price {offer.price:.3g} = {terms}; {offer.seconds:.3g} s, {free}, speed {offer.curve.speed:.2f}"
        )
