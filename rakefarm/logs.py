"""Logging of the server's processes: one line each to standard error, and nothing of a peer's unescaped."""

import logging
import sys

logger = logging.getLogger("rakefarm")


class _Formatter(logging.Formatter):
    """Keeps each message on its line, and what a terminal would obey out of it, whoever's words they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in record.message
        )
        return super().formatMessage(record)


def configure(verbose: bool) -> None:
    """Set up once, before the first worker is forked; workers inherit it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("rakeserver[%(process)d]: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    # A log that can't be written (a closed terminal, a full disk) must not stop the farm.
    logging.raiseExceptions = False
