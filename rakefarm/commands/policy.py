"""`rakefarm policy new`: the beginning of a policy of one's own, and of its tests."""

import argparse
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.config import ConfigError
from rakefarm.exitcodes import ExitStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a policy."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="write NAME.py, ten lines, and test_NAME.py")
    new.add_argument("name", metavar="NAME", help="a Python name")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.lab.kit import write_kit

    try:
        paths = write_kit(options.name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    print(f"wrote {' and '.join(paths)}; test: python -m pytest {paths[1]}; use: rake-p --policy {paths[0]}:make")
    return standard.finish(int(ExitStatus.OK))
