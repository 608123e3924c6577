"""`rakefarm quote`: what every host would ask for a command now."""

import argparse
import os
from collections.abc import Mapping
from functools import partial

from rakefarm.codes import Code
from rakefarm.commands.client_options import add_key_options, check_key_file, choose_hosts, client_settings
from rakefarm.commands.complaint import complain
from rakefarm.config import ConfigError
from rakefarm.hosts import HostSyntaxError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a question for prices."""
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, after all options")
    parser.add_argument("--hosts", metavar="LIST", help="hosts to ask instead of the Rakefile's or the configuration's")
    parser.add_argument(
        "--requires", metavar="FILE", action="append", default=[], help="an input file; may be repeated"
    )
    parser.add_argument(
        "--needs", metavar="KEY[=VALUE]", action="append", default=[], help="a resource; may be repeated"
    )
    add_key_options(parser)
    parser.add_argument("--json", action="store_true", help="print an array of objects instead")
    parser.add_argument("--config", metavar="FILE", help="read this file instead of the user's client.toml")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.client.quote import quote
    from rakefarm.client.rakefile import DEFAULT_PORT, read_rakefile
    from rakefarm.client.rakefile_model import RakefileError
    from rakefarm.embedded import embedded_server

    options.jobs = options.fallback = options.policy = options.seed = options.require_isolation = None
    settings = client_settings(options, environ)
    try:
        rakefile = read_rakefile("Rakefile") if os.path.isfile("Rakefile") else None
        named, port = (rakefile.hosts, rakefile.port) if rakefile else ((), DEFAULT_PORT)
        hosts = choose_hosts(settings, named, port)
    except RakefileError as error:
        return complain(str(error), code=error.code)
    except HostSyntaxError as error:
        raise ConfigError(f"hosts: {error}") from error
    if not options.words:
        raise ConfigError("no command is given; say, rakefarm quote cc -c main.c", Code.COMMAND_LINE)
    if not hosts:
        raise ConfigError("no host is named: use --hosts, RAKEFARM_HOSTS, a Rakefile or client.toml")
    check_key_file(options, environ)
    return quote(
        " ".join(options.words),
        options.requires,
        options.needs,
        hosts,
        settings,
        environ,
        partial(embedded_server, environ),
        as_json=options.json,
    )
