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
    parser = options.whole_parser(options.program)
    files = dict.fromkeys(("FILE", "RAKEFILE", "LEDGER", "PLAN.toml"), shtab.FILE)
    _name_files(parser, {**files, "DIR": shtab.DIRECTORY})
    text = shtab.complete(parser, shell=options.shell)  # nosec B604 # the name of a shell

    def show() -> int:
        print(text)
        return int(ExitStatus.OK)

    return standard.printed(show)


def _name_files(parser: argparse.ArgumentParser, ways: Mapping[str, object]) -> None:
    """Have the shell complete what is a file or a directory as such; `ways` are by what stands for it in the help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                _name_files(subparser, ways)
        elif isinstance(action.metavar, str) and action.metavar in ways:
            action.complete = ways[action.metavar]  # type: ignore[attr-defined]  # where shtab looks
