"""`rakefarm play`: a build once more, from its events."""

import argparse
import sys
from collections.abc import Mapping

from rakefarm.client.plain import ViewError
from rakefarm.client.play import add_arguments, play
from rakefarm.commands.complaint import not_shown

__all__ = ["add_arguments", "run"]


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    try:
        return play(options, environ, sys.stdout, sys.stderr)
    except ViewError as error:
        return not_shown(error)
