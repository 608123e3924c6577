"""The rows of `rakefarm top` and their orders: data from hosts, made safe to display."""

import math
from collections.abc import Callable, Sequence

from rakefarm.client.board import duration_text, price_text, safe_text, size_text
from rakefarm.client.tables import Sheet
from rakefarm.client.watch import Sight

NAME_CHARACTERS = 40


def _number(read: Callable[[Sight], float]) -> Callable[[Sight], tuple[bool, float, str]]:
    """An order by a number, the largest first; hosts that tell nothing come last."""
    return lambda sight: (sight.status is None, -read(sight) if sight.status else 0.0, sight.host)


ORDERS: dict[str, Callable[[Sight], tuple[bool, float, str]]] = {
    "host": lambda sight: (False, 0.0, sight.host),
    "price": lambda sight: (sight.status is None, (sight.status and sight.status.price) or math.inf, sight.host),
    "running": _number(lambda sight: sight.status.curve.running if sight.status else 0.0),
    "waiting": _number(lambda sight: sight.status.curve.waiting if sight.status else 0.0),
    "load": _number(lambda sight: sight.status.curve.busy_in_all / sight.status.curve.cores if sight.status else 0.0),
    "memory": lambda sight: (
        sight.status is None,
        float(sight.status.memory.free_bytes if sight.status else 0),
        sight.host,
    ),
    "uptime": _number(lambda sight: sight.status.uptime_s if sight.status else 0.0),
}
"""By what hosts can be sorted; the first letter of each is its key."""
HEADING = ("host", "running", "waiting", "free", "price", "load", "memory", "disk", "store", "uptime")
DISPENSABLE = ("uptime", "disk", "memory", "store", "load", "waiting")


def host_sheet(sights: Sequence[Sight], order: str, backwards: bool = False) -> Sheet:
    """A row a host."""
    sheet = Sheet(HEADING, dispensable=DISPENSABLE)
    for sight in sorted(sights, key=ORDERS[order], reverse=backwards):
        status, name = sight.status, safe_text(sight.host)
        if status is None:
            sheet.rows.append((name, *["-"] * (len(HEADING) - 1)))
            continue
        curve, store = status.curve, status.store
        looked = store.hits + store.misses
        sheet.rows.append(
            (
                name,
                str(curve.running),
                str(curve.waiting),
                f"{curve.free_slots}/{curve.slots}",
                price_text(status.price) if status.price else safe_text(status.declined.partition(":")[0])[:10],
                f"{curve.busy_in_all:.1f}/{curve.cores}",
                size_text(status.memory.free_bytes),
                size_text(status.sandbox.free_bytes),
                f"{100 * store.hits // looked} %" if looked else "-",
                duration_text(status.uptime_s),
            )
        )
    return sheet


def occupant_sheet(sights: Sequence[Sight], order: str, backwards: bool = False) -> Sheet:
    """A row for each slot that somebody has."""
    heading = ("host", "slot", "user", "client", "for", "action")
    sheet = Sheet(heading, words=frozenset({0, 2, 3, 5}), dispensable=("client", "user"))
    for sight in sorted(sights, key=ORDERS[order], reverse=backwards):
        for one in sight.status.occupants if sight.status else ():
            texts = [safe_text(text)[:NAME_CHARACTERS] for text in (one.user, one.client, one.label or "(leased)")]
            user, client, label = texts
            row = (safe_text(sight.host), str(one.slot), user, client, duration_text(one.elapsed_s), label)
            sheet.rows.append(row)
    return sheet


def problem_lines(sights: Sequence[Sight]) -> list[str]:
    """A line for each host that can't be asked."""
    return [f"{safe_text(sight.host)}: {safe_text(sight.problem)[:300]}" for sight in sights if sight.problem]


def total_line(sights: Sequence[Sight]) -> str:
    """The farm in one line."""
    known = [sight.status for sight in sights if sight.status]
    running, waiting = (sum(each.curve.running for each in known), sum(each.curve.waiting for each in known))
    slots, free = sum(each.curve.slots for each in known), sum(each.curve.free_slots for each in known)
    users = len({one.user for each in known for one in each.occupants})
    return (
        f"{len(known)} of {len(sights)} hosts, {running} running, {waiting} waiting,"
        f" {free} of {slots} slots free, {users} user{'' if users == 1 else 's'}"
    )
