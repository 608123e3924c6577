"""The commands: `rakefarm`, `rakeserver` and `rake-p`. The only module that knows both client and server.

A client starts once for every build, so what few builds need (here and elsewhere in the client) is imported where it
is needed.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from msgspec import structs

from rakefarm import __version__, standard
from rakefarm.config import ClientSettings, ConfigError, load_settings
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import Host, HostSyntaxError, parse_host_list, with_default_port

FALLBACKS = ("next", "local", "never")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage is for who asks for it."""

    json_has_a_file = False
    """This command knows --json=FILE, and --json alone means standard output."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """As ever, but for `--json`: the word behind it is not its file, since that would most often be the Rakefile,
        and be overwritten. argparse has no word for an option whose argument comes only behind `=`."""
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        if self.json_has_a_file:
            words[:end] = ["--json=-" if _is_json(word) else word for word in words[:end]]
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(int(ExitStatus.USAGE), f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _is_json(word: str) -> bool:
    """--json, or what argparse takes for it; --j might be --jobs."""
    return word.startswith("--js") and "--json".startswith(word)


def main(arguments: Sequence[str] | None = None) -> int:
    """`rakefarm COMMAND …`; answers the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["cc"]:  # a compiler's words are not ours to parse, and it is called for every file
        from rakefarm.cc.entry import main as compile_main

        return compile_main(words[1:])
    parser = _Parser(
        prog="rakefarm",
        description="Compile and link across every idle core of a lab, placed by live cost quotes.",
    )
    parser.add_argument("--version", action="version", version=f"rakefarm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    builder = commands.add_parser("build", help="run a Rakefile (also called rake-p)")
    _add_build_arguments(builder)
    builder.set_defaults(run=_build)
    server = commands.add_parser("serve", help="run a server (also called rakeserver)")
    _add_serve_arguments(server)
    server.set_defaults(run=_serve)
    quoter = commands.add_parser("quote", help="what every host would ask for a command now")
    _add_quote_arguments(quoter)
    quoter.set_defaults(run=_quote)
    commands.add_parser("cc", help="compile one file on the farm, for make, ninja and CMake", add_help=False)
    calibrator = commands.add_parser("calibrate", help="hold bids against what came of them, from the ledger")
    _add_calibrate_arguments(calibrator)
    calibrator.set_defaults(run=_calibrate)
    return _run(parser, arguments)


def build_main(arguments: Sequence[str] | None = None) -> int:
    """`rake-p`; answers the exit status."""
    parser = _Parser(prog="rake-p", description="Run a Rakefile on the farm.")
    parser.add_argument("--version", action="version", version=f"rake-p {__version__}")
    _add_build_arguments(parser)
    parser.set_defaults(run=_build)
    return _run(parser, arguments)


def serve_main(arguments: Sequence[str] | None = None) -> int:
    """`rakeserver`; answers the exit status."""
    parser = _Parser(prog="rakeserver", description="Run commands for the clients of the farm.")
    _add_serve_arguments(parser)
    parser.set_defaults(run=_serve)
    return _run(parser, arguments)


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    standard.ensure_open()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:
        return standard.finish(end.code if isinstance(end.code, int) else int(ExitStatus.USAGE))
    run: Callable[[argparse.Namespace, Mapping[str, str]], int] = options.run
    try:
        return int(run(options, os.environ))
    except ConfigError as error:
        return _complain(parser.prog, str(error))
    except KeyboardInterrupt:
        return int(ExitStatus.INTERRUPTED)
    except Exception:
        return _report_fault(parser.prog)


def _complain(program: str, text: str, status: ExitStatus = ExitStatus.USAGE) -> int:
    standard.say(f"{program}: error: {text}")
    return int(status)


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
    standard.say(
        f"{program}: this is a fault of rakefarm, please report it with {file.name}: {type(error).__name__}: {error}"
    )
    return int(ExitStatus.INTERNAL)


# --- rakefarm serve -------------------------------------------------------------------------------------


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    from rakefarm.server.options import add_arguments

    add_arguments(parser)


def _serve(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from rakefarm import logs
    from rakefarm.server.listener import serve
    from rakefarm.server.options import settings_from

    settings = settings_from(options, environ)
    logs.configure(settings.verbose)
    return serve(settings, lambda: settings_from(options, environ), watch_stdin=options.until_eof)


# --- rakefarm calibrate ---------------------------------------------------------------------------------


def _add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="the ledger to read (default: this user's)")
    parser.add_argument(
        "--run", dest="run_id", default="all", metavar="ID", help="one run by its id, the 'last', or 'all' (default)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def _calibrate(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from rakefarm.client.calibrate import calibrate

    try:
        status = calibrate(options.file, options.run_id, options.json, environ, sys.stdout, sys.stderr)
    except OSError:  # of standard output, which tells why once more
        status = int(ExitStatus.OK)
    return standard.finish(status)


# --- rakefarm build -------------------------------------------------------------------------------------


def _add_build_arguments(parser: _Parser) -> None:
    parser.json_has_a_file = True
    parser.add_argument("rakefile", nargs="?", metavar="FILE", help="the Rakefile (default: Rakefile)")
    parser.add_argument("-f", "-r", "--file", metavar="FILE", help="the same, as an option")
    parser.add_argument("-C", "--directory", metavar="DIR", help="change to DIR first")
    parser.add_argument("-j", "--jobs", metavar="N", help="actions at one time (default: the farm's slots)")
    parser.add_argument("-k", "--keep-going", action="store_true", help="start later sets after a failure, too")
    parser.add_argument("-n", "--dry-run", action="store_true", help="print the plan and present quotes; run nothing")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say where each action runs, and why")
    parser.add_argument("--hosts", metavar="LIST", help="hosts to use instead of the Rakefile's: name[:port][/slots],…")
    parser.add_argument("--fallback", choices=FALLBACKS, help="when a server is lost: the next one, this machine, none")
    parser.add_argument(
        "--policy", metavar="NAME", help="how hosts are chosen: plan (default), lowest, … or FILE.py:NAME"
    )
    parser.add_argument("--seed", metavar="N", help="make the choices of a policy that draws lots repeatable")
    parser.add_argument("--progress", choices=("auto", "live", "plain", "none"), default="auto", help="how to show it")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="when to use colour")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write events as JSON lines: --json to standard output, --json=FILE to a file",
    )
    parser.add_argument("--config", metavar="FILE", help="read this file instead of the user's client.toml")


def _build(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from rakefarm.client.build import build
    from rakefarm.client.ledger import Ledger
    from rakefarm.client.plain import Channel, OutputClosedError, OutputFailedError, TerminalGoneError, ViewError
    from rakefarm.client.policies import find_policy
    from rakefarm.client.rakefile import read_rakefile
    from rakefarm.client.rakefile_model import RakefileError, locate
    from rakefarm.client.view import open_view
    from rakefarm.embedded import EmbeddedFailed, embedded_farm

    settings = _client_settings(options, environ)
    make_policy = find_policy(settings.policy)
    if options.directory is not None:
        try:
            os.chdir(options.directory)
        except OSError as error:
            raise ConfigError(f"-C {options.directory}: {error.strerror}") from error
    if options.rakefile and options.file:
        raise ConfigError(f"two Rakefiles are named, {options.file} and {options.rakefile}; name one")
    path = options.file or options.rakefile or "Rakefile"
    if options.json not in (None, "-") and _is_same_file(options.json, path):
        raise ConfigError(f"--json={options.json}: that is the Rakefile itself, which it would overwrite")
    try:
        rakefile = read_rakefile(path)
        hosts = _choose_hosts(settings, rakefile.hosts, rakefile.port)
    except RakefileError as error:
        told = [("error", each) for each in error.errors] + [("warning", each) for each in error.warnings]
        for level, each in sorted(told, key=lambda pair: pair[1].line):
            standard.say(f"rakefarm: {level}: {locate(error.path, each)}")
        return int(ExitStatus.USAGE)
    except HostSyntaxError as error:
        raise ConfigError(f"hosts: {error}") from error
    try:
        if options.dry_run:
            from rakefarm.client.preview import preview

            out, err = Channel("standard output", sys.stdout), Channel("standard error", sys.stderr)
            return preview(rakefile, hosts, settings, environ, lambda: embedded_farm(environ, settings.jobs), out, err)
        with (
            open_view(
                options.progress,
                options.color,
                options.verbose,
                options.json,
                environ,
                sys.stdout,
                sys.stderr,
            ) as view,
            Ledger(settings, environ, view) as ledger,
        ):
            return build(
                rakefile,
                hosts,
                settings,
                environ,
                [ledger, view],
                keep_going=options.keep_going,
                embedded=lambda: embedded_farm(environ, settings.jobs),
                make_policy=make_policy,
            )
    except TerminalGoneError:
        return int(ExitStatus.HUNG_UP)
    except OutputClosedError:
        return int(ExitStatus.OUTPUT_CLOSED)
    except OutputFailedError as error:
        return _complain("rakefarm", str(error), ExitStatus.ACTION_FAILED)
    except ViewError as error:
        return _complain("rakefarm", str(error))
    except EmbeddedFailed as error:
        return _complain("rakefarm", str(error), ExitStatus.FARM_FAILED)


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is not there, or can't be
        return False


def _client_settings(options: argparse.Namespace, environ: Mapping[str, str]) -> ClientSettings:
    settings = load_settings(ClientSettings, "client.toml", options.config, environ)
    changes: dict[str, object] = {}
    jobs = options.jobs or environ.get("RAKEFARM_JOBS")
    if jobs is not None:
        if not (jobs.isascii() and jobs.isdecimal() and 0 < int(jobs) <= 4096):
            raise ConfigError(f"-j {jobs}: not a whole number from 1 to 4096")
        changes["jobs"] = int(jobs)
    fallback = options.fallback or environ.get("RAKEFARM_FALLBACK") or settings.fallback
    if fallback not in FALLBACKS:
        raise ConfigError(f"fallback {fallback!r}: choose one of {', '.join(FALLBACKS)}")
    changes["fallback"] = fallback
    policy = options.policy or environ.get("RAKEFARM_POLICY")
    if policy:
        changes["policy"] = policy
    if options.seed is not None:
        if not (options.seed.isascii() and options.seed.isdecimal() and len(options.seed) <= 18):
            raise ConfigError(f"--seed {options.seed}: not a whole number")
        changes["seed"] = int(options.seed)
    given = options.hosts or environ.get("RAKEFARM_HOSTS")
    if given:
        changes["hosts"] = (given,)
    elif settings.hosts:
        # The Rakefile's own hosts come before the file's.
        changes["hosts"] = ("", *settings.hosts)
    return structs.replace(settings, **changes)


def _choose_hosts(settings: ClientSettings, named: tuple[Host, ...], port: int) -> tuple[Host, ...]:
    """Option or variable before the Rakefile before the configuration. Raises HostSyntaxError."""
    overriding = settings.hosts[:1] != ("",) and settings.hosts
    if not overriding and named:
        return named
    listed = parse_host_list("\n".join(text for text in settings.hosts if text))
    return tuple(with_default_port(host, port) for host in listed)


# --- rakefarm quote -------------------------------------------------------------------------------------


def _add_quote_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, after all options")
    parser.add_argument("--hosts", metavar="LIST", help="hosts to ask instead of the Rakefile's or the configuration's")
    parser.add_argument(
        "--requires", metavar="FILE", action="append", default=[], help="an input file; may be repeated"
    )
    parser.add_argument(
        "--needs", metavar="KEY[=VALUE]", action="append", default=[], help="a resource; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print an array of objects instead")
    parser.add_argument("--config", metavar="FILE", help="read this file instead of the user's client.toml")


def _quote(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from rakefarm.client.quote import quote
    from rakefarm.client.rakefile import DEFAULT_PORT, read_rakefile
    from rakefarm.client.rakefile_model import RakefileError

    options.jobs = options.fallback = options.policy = options.seed = None
    settings = _client_settings(options, environ)
    try:
        rakefile = read_rakefile("Rakefile") if os.path.isfile("Rakefile") else None
        named, port = (rakefile.hosts, rakefile.port) if rakefile else ((), DEFAULT_PORT)
        hosts = _choose_hosts(settings, named, port)
    except RakefileError as error:
        return _complain("rakefarm", str(error))
    except HostSyntaxError as error:
        raise ConfigError(f"hosts: {error}") from error
    if not options.words:
        raise ConfigError("no command is given; say, rakefarm quote cc -c main.c")
    if not hosts:
        raise ConfigError("no host is named: use --hosts, RAKEFARM_HOSTS, a Rakefile or client.toml")
    return quote(
        " ".join(options.words), options.requires, options.needs, hosts, settings, environ, as_json=options.json
    )
