"""`rakefarm serve`, also called `rakeserver`."""

import argparse
import os
from collections.abc import Mapping

from rakefarm import logs, standard
from rakefarm.commands.complaint import complain
from rakefarm.config import ServerSettings
from rakefarm.exitcodes import ExitStatus
from rakefarm.server.options import add_arguments, settings_from

__all__ = ["add_arguments", "run"]


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    if options.selftest:
        return _selftest()
    if options.launched:
        return _launched(options)
    from rakefarm.server.listener import serve

    settings = settings_from(options, environ)
    logs.configure(settings.verbose)
    return serve(
        settings,
        lambda: settings_from(options, environ),
        watch_stdin=options.until_eof,
        shared_slots=options.shared_slots or "",
        job_servers=options.job_server,
    )


def _launched(options: argparse.Namespace) -> int:
    """Until standard input ends, which is the way in which a launcher stops it, and so no interruption."""
    from rakefarm.server.launched import launched_settings, own_place
    from rakefarm.server.listener import serve

    with own_place(os.environ) as place:

        def settings() -> ServerSettings:
            mine = settings_from(options, os.environ)
            return launched_settings(mine, place, options.launched, options.address, os.environ)

        first = settings()
        logs.configure(first.verbose)
        status = serve(first, settings, watch_stdin=True)
    return int(ExitStatus.OK if status == ExitStatus.INTERRUPTED else status)


def _selftest() -> int:
    from rakefarm.server.attack_table import show
    from rakefarm.server.selftest import SelftestFailed, attack_levels

    try:
        reports = attack_levels(tell=lambda text: standard.say(f"rakeserver: selftest: {text}"))
        good = show(reports, print)
    except SelftestFailed as failure:
        return complain(str(failure), program="rakeserver")
    return int(ExitStatus.OK if good else ExitStatus.ACTION_FAILED)
