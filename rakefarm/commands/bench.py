"""`rakefarm bench`: which policy is faster for one's own build, on one's own farm."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rakefarm import standard
from rakefarm.commands.client_options import add_key_options, choose_hosts, client_settings
from rakefarm.commands.experiment import whole_number
from rakefarm.config import FALLBACKS, ConfigError
from rakefarm.exitcodes import ExitStatus
from rakefarm.levels import LEVELS

if TYPE_CHECKING:
    from rakefarm.lab.bench import Bench

PASSED = ("directory", "jobs", "hosts", "key_file", "fallback", "require_isolation", "config")
"""Options with a word behind them that each build gets as they are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a bench, and those of a build that make sense in one."""
    parser.add_argument("rakefile", nargs="?", metavar="RAKEFILE", help="what is built (default: Rakefile)")
    parser.add_argument(
        "--policies",
        metavar="A,B[,C]",
        required=True,
        help="what is compared; the first is what the others are held against",
    )
    parser.add_argument("--repeat", metavar="N", default="10", help="builds with each policy (default: 10)")
    parser.add_argument(
        "--warm-up",
        metavar="N",
        default="1",
        help="builds with each policy before that, which don't count (default: 1)",
    )
    parser.add_argument("--prepare", metavar="COMMAND", help="run this in the build's directory before each build")
    parser.add_argument(
        "--json", metavar="FILE", help="write all runs and what they show as JSON; -: to standard output"
    )
    parser.add_argument(
        "--keep-ledger", metavar="DIR", help="keep the ledger of these builds, for replay and calibrate"
    )
    parser.add_argument(
        "--seed", metavar="N", default="1", help="another order of the builds, and other draws in each round"
    )
    parser.add_argument("-C", "--directory", metavar="DIR", help="build in DIR")
    parser.add_argument("-j", "--jobs", metavar="N", help="actions at one time (default: the farm's slots)")
    parser.add_argument("--hosts", metavar="LIST", help="hosts to use instead of the Rakefile's")
    add_key_options(parser)
    parser.add_argument("--fallback", choices=FALLBACKS, help="when a server is lost: the next one, this machine, none")
    parser.add_argument(
        "--require-isolation", metavar="LEVEL", help="leave out hosts that confine less: " + ", ".join(LEVELS)
    )
    parser.add_argument("--config", metavar="FILE", help="read this file instead of the user's client.toml")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status, the build's when one does not succeed. Raises ConfigError."""
    try:
        from rakefarm.lab import bench_report
        from rakefarm.lab.bench import BenchFailed, run_bench
        from rakefarm.lab.progress import shown as progress
        from rakefarm.lab.told import Told, raising_when_told
    except ModuleNotFoundError as error:
        raise ConfigError(f"bench needs {error.name}: pip install 'rakefarm[lab]'") from error
    bench = _bench(options)
    _check(options, bench, environ)
    try:
        with raising_when_told() as ending, progress("builds") as done:
            runs = run_bench(bench, environ, done, ending)
    except BenchFailed as error:
        standard.say(f"rakefarm: error: {error}")
        return error.status
    except Told as told:
        return told.status
    found = bench_report.evaluate(bench, runs)

    def tell() -> int:
        text = json.dumps(bench_report.as_record(bench, runs, found), indent=1) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
            return int(ExitStatus.OK)
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                file.write(text)
        bench_report.show(bench, runs, found, environ, sys.stdout)
        return int(ExitStatus.OK)

    return standard.printed(tell)


def _bench(options: argparse.Namespace) -> "Bench":
    from rakefarm.lab.bench import Bench

    policies = tuple([_placed(name) for name in options.policies.split(",") if name])
    if len(policies) < 2 or len(set(policies)) < len(policies):
        raise ConfigError(f"--policies {options.policies}: name two policies or more, each once, as in plan,cpu")
    words: list[str] = []
    for name in PASSED:
        if (value := getattr(options, name)) is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    if options.insecure:
        words.append("--insecure")
    words.append(f"--file={options.rakefile or 'Rakefile'}")
    return Bench(
        policies=policies,
        repeat=whole_number(options.repeat, "--repeat"),
        warm_up=whole_number(options.warm_up, "--warm-up", 0),
        options=tuple(words),
        directory=options.directory or ".",
        prepare=options.prepare or "",
        seed=whole_number(options.seed, "--seed", 0),
        keep=options.keep_ledger or "",
    )


def _placed(name: str) -> str:
    """A policy's name; a file of the user's own by its whole path."""
    path, colon, attribute = name.rpartition(":")
    return f"{os.path.abspath(path)}:{attribute}" if colon and path.endswith(".py") else name


def _check(options: argparse.Namespace, bench: "Bench", environ: Mapping[str, str]) -> None:
    """What a build would complain of, before the first of many. Raises ConfigError."""
    from rakefarm.client.policies import find_policy
    from rakefarm.client.rakefile import read_rakefile
    from rakefarm.client.rakefile_model import RakefileError
    from rakefarm.hosts import HostSyntaxError

    for policy in bench.policies:
        find_policy(policy)
    options.policy = None
    settings = client_settings(options, environ)
    if settings.engine.url:
        raise ConfigError("an engine has its own policy, and none of ours is used there: bench without one")
    path = os.path.join(bench.directory, options.rakefile or "Rakefile")
    try:
        rakefile = read_rakefile(path)
        choose_hosts(settings, rakefile.hosts, rakefile.port)
    except RakefileError as error:
        raise ConfigError(str(error), error.code) from error
    except HostSyntaxError as error:
        raise ConfigError(f"hosts: {error}") from error
    try:
        if options.json and options.json != "-":
            with open(options.json, "a", encoding="utf-8"):
                pass  # not after an hour of builds
        if bench.keep:
            os.makedirs(bench.keep, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    if not any(action.remote for each in rakefile.sets for action in each.actions):
        raise ConfigError(f"{path}: no action is remote, so no policy has anything to decide")
