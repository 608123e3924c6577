"""`rakefarm lint`: missing and unused requires."""

import argparse
import json
import os
from collections.abc import Mapping

from rakefarm import standard
from rakefarm.commands.client_options import add_rakefile_options, the_rakefile
from rakefarm.exitcodes import ExitStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a check of a Rakefile."""
    add_rakefile_options(parser)
    parser.add_argument("--json", action="store_true", help="print an array of objects instead of lines")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status: 1 when something is missing or unused. Raises ConfigError."""
    from msgspec import to_builtins

    from rakefarm.client.lint import lint

    rakefile = the_rakefile(options)

    def show() -> int:
        findings = list(lint(rakefile, environ))
        if options.json:
            print(json.dumps([to_builtins(each) for each in findings], indent=2))
        else:
            for each in findings:
                print(f"{os.fspath(rakefile.path)}:{each.line}: {each.kind}: {each.text}")
        bad = [each for each in findings if each.kind != "unchecked"]
        return int(ExitStatus.ACTION_FAILED if bad else ExitStatus.OK)

    return standard.printed(show)
