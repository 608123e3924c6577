"""`rakefarm calibrate`: bids against what came of them."""

import argparse
import sys
from collections.abc import Mapping

from rakefarm import standard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a calibration."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the ledger to read (default: this user's)")
    parser.add_argument(
        "--run", dest="run_id", default="all", metavar="ID", help="one run by its id, the 'last', or 'all' (default)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.client.calibrate import calibrate

    return standard.printed(
        lambda: calibrate(options.file, options.run_id, options.json, environ, sys.stdout, sys.stderr)
    )
