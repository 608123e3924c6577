"""The commands: `rakefarm`, `rakeserver` and `rake-p`.

A client starts once for every build, so what few builds need (here and elsewhere in the client) is imported where it
is needed: of the subcommands only the one that is asked for is loaded.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import NoReturn

from rakefarm import __version__, standard
from rakefarm.codes import Code, coded
from rakefarm.commands.complaint import complain
from rakefarm.commands.parser import Parser, speaker
from rakefarm.config import ConfigError
from rakefarm.exitcodes import ExitStatus

SUBCOMMANDS = {
    "build": "run a Rakefile (also called rake-p)",
    "serve": "run a server (also called rakeserver)",
    "quote": "what every host would ask for a command now",
    "doctor": "what is wrong with each host, and what to do about it",
    "top": "the farm, live, without a build",
    "init": "write a Rakefile for a directory of C or C++ files",
    "lint": "what actions include and do not require, or require and do not use",
    "compdb": "write compile_commands.json, for editors and analysers",
    "config": "every setting, its value, and where that comes from",
    "cc": "compile a file on the farm, for make, ninja and CMake",
    "run": "run a command, make say, with all its compiler calls on the farm",
    "up": "servers on nodes of Slurm's or machines that ssh reaches, until it is ended",
    "cache": "what the cache of compile results holds, and why a call was not found there",
    "calibrate": "hold bids against what came of them, from the ledger",
    "breakeven": "when sending an action is faster than running it here",
    "why": "who bid for an action, who won, and what came of it",
    "play": "show a build once more, from what --json=FILE wrote",
    "experiment": "try policies and bids out, simulated or on emulated hosts, and compare them",
    "bench": "which award policy is faster for one's own build, on one's own farm",
    "replay": "decide a recorded build again, offline, by other award policies",
    "lab": "a farm of emulated hosts on this machine, for trying things out",
    "policy": "begin an award policy of your own",
    "completion": "words for the shell to complete command lines with",
    "metrics": "how the farm is, for Prometheus",
    "key": "make, show and distribute the keys that open the farm",
}
"""What each is for; it stands in the module of its name in `rakefarm.commands`."""


BUILD = "Run a Rakefile on the farm."
SERVE = "Run commands for the clients of the farm."


def main(arguments: Sequence[str] | None = None) -> int:
    """`rakefarm COMMAND …`; answers the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["cc"]:  # a compiler's words are not ours to parse, and it is called for every file
        from rakefarm.cc.entry import main as compile_main

        return compile_main(words[1:])
    return _run(_rakefarm_parser(next((word for word in words if not word.startswith("-")), "")), arguments)


def build_main(arguments: Sequence[str] | None = None) -> int:
    """`rake-p`; answers the exit status."""
    return _run(_single_parser("rake-p", "build", BUILD), arguments)


def serve_main(arguments: Sequence[str] | None = None) -> int:
    """`rakeserver`; answers the exit status."""
    return _run(_single_parser("rakeserver", "serve", SERVE), arguments)


def whole_parser(program: str) -> Parser:
    """With every subcommand filled in, for what is generated from it: completions, man pages."""
    if program == "rake-p":
        return _single_parser("rake-p", "build", BUILD)
    if program == "rakeserver":
        return _single_parser("rakeserver", "serve", SERVE)
    return _rakefarm_parser(None)


def _rakefarm_parser(wanted: str | None) -> Parser:
    """Of the subcommands only the one that is wanted is loaded; None: all."""
    parser = Parser(
        prog="rakefarm",
        description="Compile and link across every idle core of a lab, placed by live cost quotes.",
    )
    parser.add_argument("--version", action="version", version=f"rakefarm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, purpose in SUBCOMMANDS.items():
        subparser = commands.add_parser(name, help=purpose)
        if wanted in (name, None):
            _fill(subparser, name)
    return parser


def _single_parser(program: str, name: str, description: str) -> Parser:
    parser = Parser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    _fill(parser, name)
    return parser


def _fill(parser: Parser, name: str) -> None:
    command = import_module(f"rakefarm.commands.{name}")
    command.add_arguments(parser)
    parser.set_defaults(run=command.run, parser=parser)


def command() -> NoReturn:
    """`rakefarm` as a process of its own."""
    standard.leave(main())


def build_command() -> NoReturn:
    """`rake-p` as a process of its own."""
    standard.leave(build_main())


def _run(parser: Parser, arguments: Sequence[str] | None) -> int:
    standard.ensure_open()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:
        return standard.finish(end.code if isinstance(end.code, int) else int(ExitStatus.USAGE))
    if "whole_parser" in options:
        options.whole_parser = whole_parser
    run: Callable[[object, Mapping[str, str]], int] = options.run
    try:
        return int(run(options, os.environ))
    except ConfigError as error:
        return complain(str(error), code=error.code, program=options.parser.prog)
    except KeyboardInterrupt:
        return int(ExitStatus.INTERRUPTED)
    except Exception:
        return _report_fault(speaker(options.parser.prog))


def _report_fault(program: str) -> int:
    """A fault of ours: the traceback goes to a file, one line to the user."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w",
        prefix="rakefarm-fault-",
        suffix=".log",
        delete=False,
        encoding="utf-8",
        errors="backslashreplace",
    ) as file:
        file.write(f"rakefarm {__version__}, Python {sys.version}\n{traceback.format_exc()}")
    error = sys.exc_info()[1]
    text = f"this is a fault of rakefarm, please report it with {file.name}: {type(error).__name__}: {error}"
    standard.say(f"{program}: {coded(text, Code.INTERNAL)}")
    return int(ExitStatus.INTERNAL)
