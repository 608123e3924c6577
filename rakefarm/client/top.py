"""`rakefarm top`: the farm without a build. Printed once, or drawn live by `top_screen`."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from msgspec import to_builtins

from rakefarm.client.build import local_server
from rakefarm.client.credentials import load_credentials
from rakefarm.client.places import Places
from rakefarm.client.tables import draw_tables
from rakefarm.client.top_rows import host_sheet, occupant_sheet, problem_lines, total_line
from rakefarm.client.watch import Sight, Watch
from rakefarm.config import ClientSettings
from rakefarm.embedded import EmbeddedServer
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import Host

GREETING_S = 1.0
"""Added to the time for connecting, for the answer to the first question."""


def top(
    hosts: Sequence[Host],
    settings: ClientSettings,
    environ: Mapping[str, str],
    embedded: EmbeddedServer,
    *,
    order: str,
    interval_s: float,
    as_json: bool,
    live: bool,
    warn: Callable[[str], None],
    stdout: TextIO,
) -> int:
    """Print once, or draw until the user leaves; answers the exit status: 0 when every host told how it is, or the user
    left. Raises ConfigError."""
    credentials = load_credentials(settings, hosts, environ)
    places = Places(environ, settings.local_slots, warn)
    with local_server(hosts, places, embedded) as local:
        watch = Watch(hosts, environ, settings.connect_s, credentials)
        watch.start(interval_s, lambda host: local() if host.is_local and local is not None else host)
        try:
            if live:
                from rakefarm.client.top_screen import show_live

                return show_live(watch, order, interval_s, stdout)
            sights = watch.wait_for_all(settings.connect_s + GREETING_S)
        finally:
            watch.close()
    if as_json:
        json.dump(_told(sights), stdout, indent=2)
        stdout.write("\n")
    else:
        sheets = [host_sheet(sights, order), occupant_sheet(sights, order)]
        draw_tables([sheet for sheet in sheets if sheet.rows], environ, stdout)
        for line in [*problem_lines(sights), total_line(sights)]:
            stdout.write(line + "\n")
    return int(ExitStatus.OK if all(sight.status for sight in sights) else ExitStatus.FARM_FAILED)


def _told(sights: Sequence[Sight]) -> list[dict[str, object]]:
    return [
        {
            "host": sight.host,
            "problem": sight.problem or None,
            "software": sight.welcome.software if sight.welcome else None,
            "isolation": sight.welcome.isolation if sight.welcome else None,
            "authentication": sight.welcome.authentication if sight.welcome else None,
            "status": to_builtins(sight.status) if sight.status else None,
        }
        for sight in sights
    ]
