"""`rakefarm up`: servers on nodes of Slurm's, or on machines that ssh reaches, until it is ended."""

import argparse
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.commands.complaint import complain
from rakefarm.commands.launch_options import add_launch_options, the_launcher, the_voice
from rakefarm.exitcodes import ExitStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a launch."""
    add_launch_options(parser, required=True)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="-- SBATCH OPTIONS",
        help="with --slurm: which nodes, for how long, on whose account",
    )


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.launch.node import LaunchFailed
    from rakefarm.launch.up import up

    voice = the_voice(options)
    launcher = the_launcher(options, options.words, environ, voice)
    try:
        return standard.printed(lambda: up(launcher, environ, voice))
    except LaunchFailed as failure:
        return complain(str(failure), ExitStatus.FARM_FAILED, failure.code)
