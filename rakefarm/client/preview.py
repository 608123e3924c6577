"""`-n`: the plan of a build and what each host would ask for now; nothing runs."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from rakefarm.client.auction import Auctioneer, NoBid
from rakefarm.client.build import EmbeddedFarm
from rakefarm.client.farm import Farm
from rakefarm.client.inputs import Hasher, InputError
from rakefarm.client.link import Request
from rakefarm.client.plan import Plan, PlannedAction
from rakefarm.client.rakefile_model import Rakefile
from rakefarm.config import ClientSettings
from rakefarm.events import Event, HostLeftOut, QuoteReceived, Stream
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import Host
from rakefarm.market.kind import kind_of
from rakefarm.wire.messages import Need


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
        quotes: list[Event] = []
        stream = Stream("", [quotes.append])
        farm = Farm([host] if host else hosts if needs_farm else [], settings, environ, stream)
        try:
            farm.start()
            auctioneer = Auctioneer(farm, stream, settings.quote_s)
            for part in plan.sets:
                print(f"{part.name}:")
                for planned in part.actions:
                    quotes.clear()
                    _print_action(planned, auctioneer, farm)
                    _print_quotes(quotes)
        finally:
            farm.close()
    return int(ExitStatus.OK)


def _print_action(planned: PlannedAction, auctioneer: Auctioneer, farm: Farm) -> None:
    action = planned.action
    place = "remote" if action.remote else "local"
    line = f"  {planned.number:>4}  line {action.line:<5} {place:<7} {action.command}"
    print(line.encode(errors="backslashreplace").decode(errors="replace"))
    if not action.remote:
        return
    needs = tuple(Need(key, value) for key, value in action.needs)
    try:
        total = Hasher().manifest(action.requires).total_bytes
    except InputError as error:
        print(f"        {error} (an earlier set may make it)")
        total = 0
    try:
        award = auctioneer.award(planned.number, Request(kind_of(action.command), needs, total), {}, {})
        farm.give_back(award.member, award.link)
    except NoBid as none:
        print(f"        no server can run it: {none}", file=sys.stderr)


def _print_quotes(events: list[Event]) -> None:
    quotes = [event for event in events if isinstance(event, QuoteReceived)]
    for quote in sorted(quotes, key=lambda quote: (quote.price is None, quote.price or 0.0)):
        if quote.price is None:
            print(f"        {quote.host:<24} declines: {quote.reason}")
        else:
            terms = " + ".join(f"{name} {value:.3g}" for name, value in quote.terms.items())
            print(f"        {quote.host:<24} price {quote.price:.3g} = {terms}")
    for event in events:
        if isinstance(event, HostLeftOut):
            print(f"        {event.host:<24} left out: {event.reason}")
