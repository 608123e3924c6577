"""Write the man pages from the parsers, by argparse-manpage: `python scripts/write_manpages.py [DIRECTORY]`.

With `--check` nothing is written; exit status 1 says that one of them is stale, and which.
"""

import os
import sys
from collections.abc import Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from argparse_manpage.manpage import Manpage  # noqa: E402  the path comes first

from rakefarm import __version__  # noqa: E402
from rakefarm.cli import whole_parser  # noqa: E402

PROGRAMS = ("rakefarm", "rake-p", "rakeserver")


def page(program: str) -> str:
    """A program's man page; without a date, so that it changes only with the parser."""
    os.environ["COLUMNS"] = "80"  # argparse folds its usage by it
    parser = whole_parser(program)
    parser._manpage = []
    found = Manpage(
        parser,
        {
            "project_name": "rakefarm",
            "version": __version__,
            "date": " ",
            "manual_title": "rakefarm",
            "description": parser.description,
        },
    )
    return f"{str(found).rstrip()}\n"


def main(arguments: Sequence[str]) -> int:
    """Answers the exit status."""
    check = "--check" in arguments
    directory = next((word for word in arguments if not word.startswith("-")), os.path.join(ROOT, "man"))
    stale = 0
    os.makedirs(directory, exist_ok=True)
    for program in PROGRAMS:
        path = os.path.join(directory, f"{program}.1")
        text = page(program)
        before = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                before = file.read()
        if text != before:
            stale += 1
            print(f"{path}: {'stale' if check else 'written'}")
            if not check:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
