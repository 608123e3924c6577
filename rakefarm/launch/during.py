"""`rakefarm run --slurm` and `--ssh`: a launched farm for as long as one command runs."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from rakefarm.cc import dialogue, locations
from rakefarm.cc.helper import CONTROL
from rakefarm.cc.masquerade import Unmasked, mask, not_executable
from rakefarm.cc.wrapper import ask_helper
from rakefarm.launch.farm import Interrupted, Voice, launched
from rakefarm.launch.launcher import Launcher
from rakefarm.launch.node import LaunchFailed
from rakefarm.launch.streams import Ended, Signalled, Streams

HELPER_STOP_S = 5.0
POLL_S = 0.01


def run_during(launcher: Launcher, words: Sequence[str], environ: Mapping[str, str], voice: Voice) -> int:
    """Run the command with its compiler calls on the farm; answers its exit status, or ours when it could not begin.
    Raises LaunchFailed or ConfigError before it has begun.

    A farm that is lost meanwhile is said to be, and no more: the compiler calls that are left run here.
    """
    streams = Streams()
    with streams.taking_signals():
        try:
            with launched(launcher, streams, environ, voice) as farm:
                hosts = farm.bring_up()
                variables = {
                    **environ,
                    "RAKEFARM_HOSTS": ",".join([host.address for host in hosts]),
                    "RAKEFARM_ENGINE": "",  # it is these hosts that are meant
                    "RAKEFARM_KEY_FILE": farm.key_file,
                    # A helper of its own: it knows these hosts, and ends with them.
                    "RAKEFARM_CC_DIRECTORY": os.path.join(farm.place, "cc"),
                }
                try:
                    return _run(streams, farm.take, words, variables, voice)
                finally:
                    _end_helper(variables)
        except Interrupted as end:
            return 128 + end.number


def _run(
    streams: Streams,
    take: Callable[[], object],
    words: Sequence[str],
    environ: Mapping[str, str],
    voice: Voice,
) -> int:
    try:
        command = streams.start_in_front(*mask(words, environ))
    except Unmasked as error:
        return error.status
    except OSError as error:
        return not_executable(words[0], error)
    while True:
        try:
            told = take()
        except LaunchFailed as failure:
            voice.tell(f"warning: {failure}; what is left is compiled here")
            take = streams.get
            continue
        if isinstance(told, Ended) and told.child == command:
            return told.status
        if isinstance(told, Signalled) and not (told.number == signal.SIGINT and _has_terminal()):
            streams.signal(told.number, command)


def _has_terminal() -> bool:
    """A terminal sends its interrupts to the command as well as to us."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _end_helper(environ: Mapping[str, str]) -> None:
    """If there is one; its socket goes when it has let go of the servers, and has written down what it learned."""
    with contextlib.suppress(OSError, dialogue.Malformed, locations.LocationError):
        path = os.path.join(locations.runtime_directory(environ), "socket")
        ask_helper([CONTROL, b"stop"], environ, start=False)
        deadline = time.monotonic() + HELPER_STOP_S
        while os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(POLL_S)
