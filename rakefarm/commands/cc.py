"""`rakefarm cc`: the words behind it are a compiler's, and `rakefarm.cc.entry` reads them; few calls come by here."""

import argparse
from collections.abc import Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None that this parser could read."""
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMPILER ARGS…")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status, or becomes the compiler."""
    del environ  # what is executed in our place has that of the process
    from rakefarm.cc.entry import main

    return main(options.words)
