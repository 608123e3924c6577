"""`rakefarm experiment`: policies and bids tried out, simulated or on a farm of emulated hosts."""

import argparse
import os
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.config import ConfigError
from rakefarm.exitcodes import ExitStatus

MODES = {"sim": ("sim",), "farm": ("farm",), "both": ("sim", "farm")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of an experiment."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    running = actions.add_parser("run", help="run a plan")
    running.add_argument("plan", metavar="PLAN.toml", help="what is varied (docs/lab.md)")
    running.add_argument(
        "--mode",
        choices=MODES,
        default="sim",
        help="simulated (default), real servers on this machine that stand for the hosts, or both",
    )
    running.add_argument("--out", metavar="DIR", help="where results go (default: PLAN-results)")
    running.add_argument("-j", "--jobs", metavar="N", help="simulations at one time (default: this machine's cores)")
    running.add_argument(
        "--parquet", action="store_true", help="write runs.parquet and actions.parquet, too (rakefarm[parquet])"
    )
    checking = actions.add_parser("check", help="hold the lab against published results")
    checking.add_argument("--only", metavar="NAME", help="one of them")
    checking.add_argument("--seed", metavar="N", default="1", help="another draw of what is drawn")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    return _check(options) if options.action == "check" else _run(options)


def whole_number(text: str, what: str, least: int = 1) -> int:
    """The number an option asks for. Raises ConfigError."""
    if not (text.isascii() and text.isdecimal() and least <= int(text[:9]) <= 10**6):
        raise ConfigError(f"{what} {text}: not a whole number from {least} to 1000000")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    try:
        from rakefarm.lab.conduct import conduct
        from rakefarm.lab.experiment import FAILURES
    except ModuleNotFoundError as error:
        raise ConfigError(f"experiments need {error.name}: pip install 'rakefarm[lab]'") from error
    jobs = whole_number(options.jobs, "-j") if options.jobs else os.cpu_count() or 1
    out = options.out or os.path.splitext(options.plan)[0] + "-results"
    try:
        return standard.printed(lambda: conduct(options.plan, MODES[options.mode], out, jobs, options.parquet))
    except FAILURES as error:
        raise ConfigError(str(error)) from error


def _check(options: argparse.Namespace) -> int:
    try:
        from rakefarm.lab.published import check_all
    except ModuleNotFoundError as error:
        raise ConfigError(f"checks need {error.name}: pip install 'rakefarm[lab]'") from error
    seed = whole_number(options.seed, "--seed", 0)
    try:
        return standard.printed(
            lambda: int(ExitStatus.OK if check_all(options.only, seed, print) else ExitStatus.ACTION_FAILED)
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
