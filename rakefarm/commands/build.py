"""`rakefarm build`, also called `rake-p`."""

import argparse
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from rakefarm import standard
from rakefarm.codes import coded
from rakefarm.commands.client_options import add_key_options, check_key_file, choose_hosts, client_settings
from rakefarm.commands.complaint import not_shown
from rakefarm.commands.parser import Parser
from rakefarm.config import FALLBACKS, ClientSettings, ConfigError
from rakefarm.events import Stream
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import HostSyntaxError
from rakefarm.levels import LEVELS

if TYPE_CHECKING:
    from rakefarm.client.build import MakeEngine, UsedEngine


def add_arguments(parser: Parser) -> None:
    """Of a build."""
    from rakefarm.client import view

    parser.json_has_a_file = True
    parser.add_argument("rakefile", nargs="?", metavar="FILE", help="the Rakefile (default: Rakefile)")
    parser.add_argument("-f", "-r", "--file", metavar="FILE", help="the same, as an option")
    parser.add_argument("-C", "--directory", metavar="DIR", help="change to DIR first")
    parser.add_argument("-j", "--jobs", metavar="N", help="actions at one time (default: the farm's slots)")
    parser.add_argument("-k", "--keep-going", action="store_true", help="start later sets after a failure, too")
    parser.add_argument("-n", "--dry-run", action="store_true", help="print the plan and present quotes; run nothing")
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say where each action runs and how it ends; -vv: and what each host asks",
    )
    parser.add_argument(
        "--hosts",
        metavar="LIST",
        help="hosts to use instead of the Rakefile's: name[:port][/slots],…; local is this machine",
    )
    add_key_options(parser)
    parser.add_argument(
        "--engine",
        metavar="URL",
        help="have the engine at grpc[s]://HOST:PORT[/INSTANCE] run the remote actions instead (docs/engine.md)",
    )
    parser.add_argument("--fallback", choices=FALLBACKS, help="when a server is lost: the next one, this machine, none")
    parser.add_argument(
        "--policy",
        metavar="NAME",
        help="how hosts are chosen: plan (default), plan-break-even, plan-no-backups, lowest, lowest-burst, random,"
        " cores, round-robin, first, cpu, load-average, in-flight, two-choices, prequal, sparrow, or FILE.py:NAME",
    )
    parser.add_argument(
        "--require-isolation",
        metavar="LEVEL",
        help="leave out hosts that confine commands less than this: " + ", ".join(LEVELS),
    )
    parser.add_argument("--seed", metavar="N", help="make the choices of a policy that draws lots repeatable")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="have every action run: take no result that a host has kept of an earlier run",
    )
    view.add_arguments(parser)
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write events as JSON lines: --json to standard output, --json=FILE to a file",
    )
    parser.add_argument("--config", metavar="FILE", help="read this file instead of the user's client.toml")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.client.build import build
    from rakefarm.client.ledger import Ledger
    from rakefarm.client.plain import Channel, ViewError
    from rakefarm.client.policies import find_policy
    from rakefarm.client.rakefile import read_rakefile
    from rakefarm.client.rakefile_model import RakefileError, locate
    from rakefarm.client.view import check_written, open_view
    from rakefarm.embedded import embedded_server

    settings = client_settings(options, environ)
    make_policy = find_policy(settings.policy)
    if options.directory is not None:
        try:
            os.chdir(options.directory)
        except OSError as error:
            raise ConfigError(f"-C {options.directory}: {error.strerror}") from error
    check_key_file(options, environ)
    if options.rakefile and options.file:
        raise ConfigError(f"two Rakefiles are named, {options.file} and {options.rakefile}; name one")
    path = options.file or options.rakefile or "Rakefile"
    check_written(options, path)
    try:
        rakefile = read_rakefile(path)
        hosts = choose_hosts(settings, rakefile.hosts, rakefile.port)
    except RakefileError as error:
        told = [("error", each) for each in error.errors] + [("warning", each) for each in error.warnings]
        for level, each in sorted(told, key=lambda pair: pair[1].line):
            text = locate(error.path, each)
            standard.say(f"rakefarm: {level}: {coded(text, error.code) if level == 'error' else text}")
        return int(ExitStatus.USAGE)
    except HostSyntaxError as error:
        raise ConfigError(f"hosts: {error}") from error
    try:
        if options.dry_run:
            from rakefarm.client.preview import preview

            out, err = Channel("standard output", sys.stdout), Channel("standard error", sys.stderr)
            return preview(rakefile, hosts, settings, environ, partial(embedded_server, environ), out, err)
        with (
            open_view(
                options.progress,
                options.color,
                options.verbose,
                options.json,
                environ,
                sys.stdout,
                sys.stderr,
                trace=options.trace,
                report=options.report,
            ) as view,
            Ledger(settings, environ, view) as ledger,
        ):
            return build(
                rakefile,
                hosts,
                settings,
                environ,
                [ledger, view],
                keep_going=options.keep_going,
                embedded=partial(embedded_server, environ),
                make_policy=make_policy,
                engine=_make_engine(settings, environ) if settings.engine.url else None,
            )
    except ViewError as error:
        return not_shown(error)


def _make_engine(settings: ClientSettings, environ: Mapping[str, str]) -> "MakeEngine":
    """Raises ConfigError for an engine that can't be meant."""
    from rakefarm.engine.access import check_engine, parse_properties

    check_engine(settings.engine, settings.insecure)
    parse_properties(settings.engine.properties)

    def make(stream: Stream) -> "UsedEngine":
        from rakefarm.client.engine import Engine

        return Engine(settings, environ, stream)

    return make
