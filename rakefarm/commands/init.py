"""`rakefarm init`: a Rakefile for a directory of C or C++ files."""

import argparse
import os
import shlex
from collections.abc import Mapping

from rakefarm.config import ConfigError
from rakefarm.exitcodes import ExitStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a new Rakefile."""
    parser.add_argument(
        "directory", nargs="?", metavar="DIR", default=".", help="where the sources are (default: here)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write this file (default: Rakefile in DIR); - prints it"
    )
    parser.add_argument("--name", metavar="NAME", help="what the program is called (default: like the directory)")
    parser.add_argument("--cc", metavar="COMMAND", default="cc", help="the C compiler (default: cc)")
    parser.add_argument("--cxx", metavar="COMMAND", default="c++", help="the C++ compiler (default: c++)")
    parser.add_argument("--options", metavar="WORDS", default="-O2", help="for every compilation (default: -O2)")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm import standard
    from rakefarm.client.new_rakefile import Compilers, examine, find_sources, rakefile_text, write_new

    directory = options.directory
    if not os.path.isdir(directory):
        raise ConfigError(f"{directory}: no such directory")
    path = options.output or os.path.join(directory, "Rakefile")
    if path != "-" and os.path.lexists(path):
        raise ConfigError(f"{path} is there already; move it away, or name another with --output FILE")
    try:
        words = tuple(shlex.split(options.options))
    except ValueError as error:
        raise ConfigError(f"--options {options.options!r}: {error}") from error
    paths, headed = find_sources(directory)
    if not paths:
        raise ConfigError(f"{directory}: there is no C or C++ file here or below")
    name = options.name or os.path.basename(os.path.abspath(directory)) or "program"
    if os.path.isdir(os.path.join(directory, name)):
        name += "-program"
    try:
        sources, compilers = examine(directory, paths, headed, Compilers(options.cc, options.cxx, words), environ)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{getattr(error, 'filename', None) or options.cc}: {error}") from error
    text = rakefile_text(sources, compilers, name)
    if path == "-":
        return standard.printed(lambda: print(text, end="") or int(ExitStatus.OK))
    write_new(path, text)
    programs = sum(source.has_main for source in sources)
    made = f"{programs} program{'' if programs == 1 else 's'}" if programs else f"lib{name}.a"
    print(f"{path}: {len(sources)} compilations, {made}; build it: rake-p -C {shlex.quote(directory)}")
    return standard.finish(int(ExitStatus.OK))
