"""`rakefarm why`: who bid for an action, and who won."""

import argparse
import sys
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.client.why import add_arguments, why

__all__ = ["add_arguments", "run"]


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    return standard.printed(lambda: why(options, environ, sys.stdout, sys.stderr))
