"""`rakefarm top`: the farm, live, without a build."""

import argparse
import sys
from collections.abc import Mapping
from functools import partial

from rakefarm import standard
from rakefarm.commands.client_options import add_farm_options, farm_settings
from rakefarm.config import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a look at the farm."""
    from rakefarm.client.top_rows import ORDERS

    add_farm_options(parser)
    parser.add_argument("--sort", choices=list(ORDERS), default="host", help="the order of hosts (default: host)")
    parser.add_argument("--interval", metavar="SECONDS", default="1", help="between two questions (default: 1)")
    parser.add_argument("--once", action="store_true", help="print once and end, as without a terminal")
    parser.add_argument("--json", action="store_true", help="print an array of objects once, and end")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.client.top import top
    from rakefarm.client.view import is_dumb
    from rakefarm.embedded import embedded_server

    try:
        interval_s = float(options.interval)
    except ValueError:
        interval_s = 0.0
    if not 0.1 <= interval_s <= 3600:
        raise ConfigError(f"--interval {options.interval}: not a number of seconds from 0.1 to 3600")
    settings, hosts = farm_settings(options, environ)
    terminal = sys.stdout.isatty() and sys.stdin.isatty() and not is_dumb(environ)

    def warn(text: str) -> None:
        standard.say(f"rakefarm: warning: {text}")

    return standard.printed(
        lambda: top(
            hosts,
            settings,
            environ,
            partial(embedded_server, environ),
            order=options.sort,
            interval_s=interval_s,
            as_json=options.json,
            live=terminal and not options.once and not options.json,
            warn=warn,
            stdout=sys.stdout,
        )
    )
