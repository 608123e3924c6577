"""`rakefarm cc` with options of its own, and what becomes the helper."""

import argparse
import os
import sys
from collections.abc import Sequence

from rakefarm.cc import dialogue, locations
from rakefarm.cc.helper import CONTROL, IDLE_S, run
from rakefarm.cc.launcher import build_launcher, install_links
from rakefarm.cc.wrapper import CallStatus, ask_helper
from rakefarm.market.needs import parse_size
from rakefarm.open_files import allow_more


def command(words: Sequence[str]) -> int:
    """Answers the exit status."""
    parser = argparse.ArgumentParser(
        prog="rakefarm cc",
        usage="rakefarm cc [-v] [--engine URL] [--ship-toolchain] [--cache-dir DIR] [--cache-size SIZE]\n"
        "                   COMPILER ARGS…\n"
        "       rakefarm cc --statistics | --stop | --launcher | --install-links DIR",
        description="Compile on the farm what can be, with the very result that the compiler has here; the rest here.",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say where it compiles, and if here, why")
    parser.add_argument(
        "--engine",
        metavar="URL",
        help="have the engine at grpc[s]://HOST:PORT[/INSTANCE] compile, and no hosts (docs/engine.md)",
    )
    parser.add_argument("--ship-toolchain", action="store_true", help="send gcc to hosts that have another one")
    parser.add_argument("--cache-dir", metavar="DIR", help="keep results in this directory")
    parser.add_argument("--cache-size", metavar="SIZE", help="keep so much of them, like 5G; 0: none")
    parser.add_argument("--statistics", action="store_true", help="how many calls went where, and why")
    parser.add_argument("--stop", action="store_true", help="end the helper process")
    parser.add_argument("--launcher", action="store_true", help="print the compiled launcher's path, for CC and cmake")
    parser.add_argument("--install-links", metavar="DIR", help="make links named gcc, g++, … to the launcher in DIR")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMPILER ARGS…")
    try:
        options = parser.parse_args(words)
    except SystemExit as end:
        return CallStatus.USAGE if end.code else 0
    try:
        if options.launcher:
            print(build_launcher(os.environ))
            return 0
        if options.install_links:
            for name in install_links(options.install_links, os.environ):
                print(name)
            return 0
        if options.statistics or options.stop:
            answer = ask_helper([CONTROL, b"stop" if options.stop else b"statistics"], os.environ, start=False)
            sys.stdout.write(answer.stdout.decode())
            return answer.status
    except (FileNotFoundError, ConnectionRefusedError):
        if options.stop:
            return 0
        print("rakefarm cc: no helper is running", file=sys.stderr)
        return CallStatus.NO_HELPER
    except (OSError, dialogue.Malformed, locations.LocationError) as error:
        print(f"rakefarm cc: error: {error}", file=sys.stderr)
        return CallStatus.NO_HELPER
    if not options.words:
        parser.print_usage(sys.stderr)
        return CallStatus.USAGE
    from rakefarm.cc.wrapper import call

    if options.verbose:
        os.environ["RAKEFARM_VERBOSE"] = "1"
    if options.engine:
        os.environ["RAKEFARM_ENGINE"] = options.engine
    if options.ship_toolchain:
        os.environ["RAKEFARM_SHIP_TOOLCHAIN"] = "1"
    if options.cache_dir is not None:
        os.environ["RAKEFARM_RESULT_CACHE"] = os.path.abspath(options.cache_dir)
    if options.cache_size is not None:
        if parse_size(options.cache_size) is None:
            print(f"rakefarm cc: error: --cache-size {options.cache_size}: write a size like 5G, or 0", file=sys.stderr)
            return CallStatus.USAGE
        os.environ["RAKEFARM_RESULT_CACHE_SIZE"] = options.cache_size
    return call([os.fsencode(word) for word in options.words], os.environ)


def helper() -> int:
    """Become the helper; what its caller has open is not kept."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, min(hard, 1 << 20))
    allow_more()
    log = os.environ.get("RAKEFARM_CC_LOG")
    if log:
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        from rakefarm import logs

        logs.configure(True)
    idle_s = float(os.environ.get("RAKEFARM_CC_IDLE_S", "") or IDLE_S)
    return run(locations.runtime_directory(os.environ), dict(os.environ), idle_s)
