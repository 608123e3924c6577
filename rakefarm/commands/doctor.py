"""`rakefarm doctor`: what is wrong with each host, and what to do about it."""

import argparse
import sys
from collections.abc import Mapping
from functools import partial

from rakefarm import standard
from rakefarm.commands.client_options import add_farm_options, farm_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of an examination."""
    add_farm_options(parser)
    parser.add_argument(
        "--compiler", metavar="NAME", default="cc", help="what must be the same there as here (default: cc)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.client.doctor import doctor
    from rakefarm.config import ConfigError
    from rakefarm.embedded import embedded_server

    if (
        not options.compiler.isascii()
        or not options.compiler.replace("-", "").replace("+", "").replace(".", "").isalnum()
    ):
        raise ConfigError(f"--compiler {options.compiler!r}: write a program's name, like gcc-12")
    settings, hosts = farm_settings(options, environ)

    def warn(text: str) -> None:
        standard.say(f"rakefarm: warning: {text}")

    return standard.printed(
        lambda: doctor(
            hosts,
            settings,
            environ,
            partial(embedded_server, environ),
            compiler=options.compiler,
            as_json=options.json,
            warn=warn,
            stdout=sys.stdout,
        )
    )
