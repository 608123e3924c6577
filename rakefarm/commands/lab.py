"""`rakefarm lab`: a farm of emulated hosts on this machine, for trying things out."""

import argparse
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.config import ConfigError

MOST = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a farm on one machine."""
    parser.add_argument("hosts", metavar="N", help="how many servers")
    parser.add_argument(
        "--profile",
        metavar="LIST",
        default="uneven",
        help="what they are like: uneven (default), alike, busy, changing, distant, flaky, slow, liar; several with"
        " commas",
    )
    parser.add_argument("--seed", metavar="N", default="1", help="other hosts of the same kind")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Until it is told to stop; answers the exit status. Raises ConfigError."""
    from rakefarm.commands.experiment import whole_number
    from rakefarm.lab.draw import LabError
    from rakefarm.lab.loopback import serve

    number = whole_number(options.hosts, "N")
    if number > MOST:
        raise ConfigError(f"N {number}: at most {MOST} servers on one machine")
    seed = whole_number(options.seed, "--seed", 0)
    try:
        return standard.printed(lambda: serve(number, tuple(options.profile.split(",")), seed))
    except LabError as error:
        raise ConfigError(str(error)) from error
