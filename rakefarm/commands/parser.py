"""How a command line is read."""

import argparse
import os
import sys
from functools import cache
from typing import Any, NoReturn

from rakefarm.codes import Code, coded
from rakefarm.exitcodes import ExitStatus


class Parser(argparse.ArgumentParser):
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

    def _get_formatter(self) -> argparse.HelpFormatter:
        # argparse makes one for every option, and without a width each imports shutil, with all its compressors.
        return argparse.HelpFormatter(self.prog, width=_columns() - 2)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, but that words which nobody knows are a mistake of the subcommand that they were given to."""
        options, unknown = self.parse_known_args(args, namespace)  # type: ignore[no-untyped-call]
        if unknown:
            getattr(options, "parser", self).error(f"unrecognized arguments: {' '.join(unknown)}")
        return options

    def error(self, message: str) -> NoReturn:
        text = coded(f"{message}; see {self.prog} --help", Code.COMMAND_LINE)
        self.exit(int(ExitStatus.USAGE), f"{speaker(self.prog)}: error: {text}\n")


def speaker(program: str) -> str:
    """Who a line of ours begins with: all that a client says is of rakefarm, all that a server says of rakeserver."""
    return "rakeserver" if program in ("rakeserver", "rakefarm serve") else "rakefarm"


@cache
def _columns() -> int:
    """How wide the terminal is, for help: $COLUMNS, or what the system says."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns[:5]) > 0:
        return int(columns[:5])
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def _is_json(word: str) -> bool:
    """--json, or what argparse takes for it; --j might be --jobs."""
    return word.startswith("--js") and "--json".startswith(word)
