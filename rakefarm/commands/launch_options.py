"""What `rakefarm up` and `rakefarm run` have in common: which way to launch, where, and for how long to wait."""

import argparse
import os
import shlex
import sysconfig
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rakefarm import standard
from rakefarm.config import ConfigError
from rakefarm.hosts import MAX_PORT, parse_number

if TYPE_CHECKING:
    from rakefarm.launch.farm import Voice
    from rakefarm.launch.launcher import Launcher

MOST_NODES = 4096


def add_launch_options(parser: argparse.ArgumentParser, required: bool) -> None:
    """Of a farm that is launched for a while."""
    ways = parser.add_mutually_exclusive_group(required=required)
    ways.add_argument("--slurm", action="store_true", help="launch servers on nodes that Slurm allocates")
    ways.add_argument("--ssh", metavar="HOSTFILE", help="launch servers by your own ssh, on the hosts in this file")
    parser.add_argument("-N", "--nodes", metavar="N", help="with --slurm: how many nodes")
    parser.add_argument("--wait", action="store_true", help="with --slurm: wait until the nodes are free")
    parser.add_argument(
        "--slurm-options", metavar="WORDS", default="", help="with --slurm: options of sbatch that salloc has, too"
    )
    parser.add_argument("--program", metavar="PATH", default="", help="what to start there (default: our rakeserver)")
    parser.add_argument("--port", metavar="PORT", help="where servers listen (default: 0, each picks a port)")
    parser.add_argument(
        "--start-timeout",
        metavar="SECONDS",
        default="60",
        help="how long the servers may take to be ready (default: 60)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show what nodes and launchers say")


def the_launcher(
    options: argparse.Namespace, words: Sequence[str], environ: Mapping[str, str], voice: "Voice"
) -> "Launcher":
    """The one that the options mean; `words` are more of Slurm's. Raises ConfigError."""
    from rakefarm.launch.launcher import Options

    common = Options(options.program, _port(options.port), _seconds(options.start_timeout))
    ours = os.path.join(sysconfig.get_path("scripts"), "rakeserver")
    try:
        words = [*shlex.split(options.slurm_options), *words]
    except ValueError as error:
        raise ConfigError(f"--slurm-options {options.slurm_options!r}: {error}") from error
    if options.slurm:
        from rakefarm.launch.slurm import Slurm

        count = parse_number(options.nodes or "", MOST_NODES)
        if count is None:
            given = "without -N" if options.nodes is None else f"-N {options.nodes}"
            raise ConfigError(f"--slurm {given}: write how many nodes, from 1 to {MOST_NODES}: -N 4")
        return Slurm(count, options.wait, words, common, ours, environ, voice.tell)
    from rakefarm.launch.ssh import Ssh, read_host_file

    if options.nodes is not None or options.wait or words:
        raise ConfigError("-N, --wait and options of Slurm are for --slurm; with --ssh the file says which hosts")
    return Ssh(read_host_file(options.ssh), common, ours, environ)


def the_voice(options: argparse.Namespace) -> "Voice":
    """On standard error."""
    from rakefarm.launch.farm import Voice

    return Voice(lambda text: standard.say(f"rakefarm: {text}"), options.verbose)


def _port(text: str | None) -> int:
    if text is None or text == "0":
        return 0
    port = parse_number(text, MAX_PORT)
    if port is None:
        raise ConfigError(f"--port {text}: not a number from 0 to {MAX_PORT}")
    return port


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86_400:
        raise ConfigError(f"--start-timeout {text}: not a number of seconds from 1 to 86400")
    return seconds
