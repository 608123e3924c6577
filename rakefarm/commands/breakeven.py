"""`rakefarm breakeven`: when sending an action to these hosts is faster than running it here."""

import argparse
import os
import sys
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.commands.client_options import add_farm_options, farm_settings

MOST_S = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a measurement."""
    add_farm_options(parser)
    parser.add_argument(
        "-f", "--file", metavar="FILE", help="judge the actions of this Rakefile (default: Rakefile, if there is one)"
    )
    parser.add_argument(
        "--seconds", metavar="S", default="30", help="how long to measure, over all hosts (default: 30)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.client.breakeven import breakeven
    from rakefarm.client.rakefile import read_rakefile
    from rakefarm.client.rakefile_model import RakefileError
    from rakefarm.config import ConfigError

    try:
        seconds = float(options.seconds)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= MOST_S:
        raise ConfigError(f"--seconds {options.seconds}: not a number from 0 to {MOST_S:g}")
    settings, hosts = farm_settings(options, environ)
    path = options.file or ("Rakefile" if os.path.isfile("Rakefile") else "")
    try:
        rakefile = read_rakefile(path) if path else None
    except RakefileError as error:
        raise ConfigError(str(error), error.code) from error
    if any(host.is_local for host in hosts):
        raise ConfigError("local is what the hosts are measured against: name others")
    return standard.printed(
        lambda: breakeven(hosts, rakefile, settings, environ, seconds=seconds, as_json=options.json, stdout=sys.stdout)
    )
