"""`rakefarm run`: one command, a build mostly, whose compiler calls all go by `rakefarm cc`."""

import argparse
from collections.abc import Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of one command."""
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="make -j, ninja, cmake --build DIR -j, …"
    )


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Becomes the command; answers an exit status only when that can't be."""
    from rakefarm.cc.masquerade import run_command

    return run_command(options.words, environ)
