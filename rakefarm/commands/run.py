"""`rakefarm run`: one command, a build mostly, whose compiler calls all go by `rakefarm cc`."""

import argparse
from collections.abc import Mapping

from rakefarm.commands.complaint import complain
from rakefarm.commands.launch_options import add_launch_options, the_launcher, the_voice
from rakefarm.exitcodes import ExitStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of one command."""
    add_launch_options(parser, required=False)
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="make -j, ninja, cmake --build DIR -j, …"
    )


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Becomes the command, or runs it while a farm of its own is up; answers the exit status, which is the command's
    where it has run. Raises ConfigError."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if words and (options.slurm or options.ssh is not None):
        return _run_launched(options, words, environ)
    from rakefarm.cc.masquerade import run_command

    return run_command(words, environ)


def _run_launched(options: argparse.Namespace, words: list[str], environ: Mapping[str, str]) -> int:
    from rakefarm.launch.during import run_during
    from rakefarm.launch.node import LaunchFailed

    voice = the_voice(options)
    launcher = the_launcher(options, (), environ, voice)
    try:
        return run_during(launcher, words, environ, voice)
    except LaunchFailed as failure:
        return complain(str(failure), ExitStatus.FARM_FAILED, failure.code)
