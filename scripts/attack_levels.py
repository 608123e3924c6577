"""Attack a server at each level of isolation, and write what came of it into docs/security.md, between its marks.

`--check` writes nothing; exit status 1 says that the document shows something else than this machine does. Root attacks
two servers at each level, one that it started itself and one that an ordinary user did, for the document has both.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests", "abuse")]

from ordinary_user import NoOrdinaryUser, attack_as_ordinary_user  # noqa: E402  the path comes first

from rakefarm.server.attack_table import document_with, rows_of  # noqa: E402
from rakefarm.server.selftest import attack_levels  # noqa: E402

DOCUMENT = os.path.join(ROOT, "docs", "security.md")


def main() -> int:
    """Answers the exit status."""
    if os.geteuid():
        as_root, as_user = None, attack_levels()
    else:
        try:
            as_root, as_user = attack_levels(), attack_as_ordinary_user()
        except NoOrdinaryUser as error:
            print(f"only as root: {error}", file=sys.stderr)
            return 1
    with open(DOCUMENT, encoding="utf-8") as file:
        before = file.read()
    after = document_with(before, rows_of(as_user, as_root or as_user))
    if "--check" in sys.argv[1:]:
        if before != after:
            print("docs/security.md is stale: run python scripts/attack_levels.py", file=sys.stderr)
        return int(before != after)
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
