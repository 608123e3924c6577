"""Logging of the server's processes: one line each to standard error, and nothing of a peer's unescaped."""

import logging
import sys

logger = logging.getLogger("rakefarm")


def configure(verbose: bool) -> None:
    """Set up once, before the first worker is forked; workers inherit it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("rakeserver[%(process)d]: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    # A log that can't be written (a closed terminal, a full disk) must not stop the farm.
    logging.raiseExceptions = False
