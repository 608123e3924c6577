"""`rakefarm completion SHELL`: what a shell completes our command lines with, made from the parsers by shtab."""

import argparse
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.config import ConfigError
from rakefarm.exitcodes import ExitStatus

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("rakefarm", "rake-p", "rakeserver")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a completion."""
    parser.add_argument("shell", choices=SHELLS, help="for which shell")
    parser.add_argument("--program", choices=PROGRAMS, default="rakefarm", help="of which program (default: rakefarm)")
    parser.set_defaults(whole_parser=None)


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    try:
        import shtab
    except ImportError as error:
        raise ConfigError("completion needs shtab: pip install shtab") from error
    text = shtab.complete(options.whole_parser(options.program), shell=options.shell)  # nosec B604 # the name of a shell

    def show() -> int:
        print(text)
        return int(ExitStatus.OK)

    return standard.printed(show)
