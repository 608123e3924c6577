"""`rakefarm compdb`: compile_commands.json."""

import argparse
import json
import os
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.commands.client_options import add_rakefile_options, the_rakefile
from rakefarm.commands.complaint import not_shown
from rakefarm.exitcodes import ExitStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a compilation database."""
    add_rakefile_options(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="compile_commands.json", help="write this file; - prints it"
    )


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.client.compilation_database import entries
    from rakefarm.client.plain import ViewError
    from rakefarm.client.whole_file import WholeFile

    found = list(entries(the_rakefile(options), os.getcwd()))
    text = json.dumps(found, indent=2) + "\n"
    if options.output == "-":

        def show() -> int:
            print(text, end="")
            return int(ExitStatus.OK)

        return standard.printed(show)
    try:
        file = WholeFile(options.output, "--output")
        try:
            file.write(text.encode("utf-8", "backslashreplace"))
            file.finish()
        finally:
            file.close()
    except ViewError as error:
        return not_shown(error)
    print(f"{options.output}: {len(found)} compilations")
    return standard.finish(int(ExitStatus.OK))
