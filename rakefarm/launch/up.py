"""`rakefarm up`: a launched farm, until we are told to end it."""

import os
import shlex
import signal
import sys
from collections.abc import Mapping

from rakefarm.exitcodes import ExitStatus
from rakefarm.launch.farm import Interrupted, LaunchedFarm, Voice, launched
from rakefarm.launch.launcher import Launcher
from rakefarm.launch.streams import Signalled, Streams


def up(launcher: Launcher, environ: Mapping[str, str], voice: Voice) -> int:
    """Bring the farm up, say where it is, and wait for a signal; answers the exit status: SIGTERM is the way to end it.
    Raises LaunchFailed or ConfigError."""
    streams = Streams()
    with streams.taking_signals():
        try:
            with launched(launcher, streams, environ, voice) as farm:
                sys.stdout.write(_where(farm))
                sys.stdout.flush()
                count = len(farm.nodes)
                voice.tell(
                    f"{count} server{'s' if count > 1 else ''} with {farm.slots} slots; kill {os.getpid()} ends them"
                )
                while not isinstance(told := farm.take(), Signalled):
                    pass
        except Interrupted as end:
            return 128 + end.number
    return int(ExitStatus.INTERRUPTED if told.number == signal.SIGINT else ExitStatus.OK)


def _where(farm: LaunchedFarm) -> str:
    """What a shell can evaluate, and the line for a Rakefile."""
    addresses = [host.address for host in farm.bring_up()]
    variables = f"RAKEFARM_HOSTS={shlex.quote(','.join(addresses))} RAKEFARM_KEY_FILE={shlex.quote(farm.key_file)}"
    return f"# HOSTS = {' '.join(addresses)}\nexport {variables}\n"
