"""What the levels stop, as a table: for docs/security.md, and for a terminal."""

from collections.abc import Callable, Mapping, Sequence

from rakefarm.levels import LEVELS
from rakefarm.server.attacks import ATTACKS, Attack
from rakefarm.server.selftest import LevelReport

BEGIN, END = "<!-- generated: attacks -->", "<!-- end -->"

Rows = Mapping[str, Sequence[str]]
"""By attack: a word for each level."""


def rows_of(as_user: Sequence[LevelReport], as_root: Sequence[LevelReport]) -> Rows:
    """What came of each attack at each level, where an ordinary user and where root started the server."""
    pairs = list(zip(as_user, as_root, strict=True))
    return {attack.name: [_word(attack, user, root) for user, root in pairs] for attack in ATTACKS}


def _word(attack: Attack, user: LevelReport, root: LevelReport) -> str:
    if user.problem or root.problem:
        return "?"
    succeeded = user.succeeded[attack.name], root.succeeded[attack.name]
    return {
        (False, False): "stopped",
        (True, True): "**succeeds**",
        (True, False): "**succeeds**, stopped as root",
        (False, True): "stopped, **succeeds** as root",
    }[succeeded]


def document_with(text: str, rows: Rows) -> str:
    """The document with these rows between its marks."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    lines = ["| attack | what it tries | " + " | ".join(LEVELS) + " |", "|---|---|" + "---|" * len(LEVELS)]
    lines += [f"| {attack.name} | {attack.tries} | " + " | ".join(rows[attack.name]) + " |" for attack in ATTACKS]
    return "\n".join([head + BEGIN, *lines, END + tail])


def show(reports: Sequence[LevelReport], say: Callable[[str], object]) -> bool:
    """Print what each level stops; False when one lets through what it must not."""
    width = max(len(attack.name) for attack in ATTACKS) + 2
    say(" " * width + "".join(f"{report.level:<12}" for report in reports))
    good = True
    for attack in ATTACKS:
        cells = []
        for report in reports:
            if report.problem:
                cells.append("-")
            elif not report.succeeded[attack.name]:
                cells.append("stopped")
            else:
                good &= not report.stops(attack)
                cells.append("SUCCEEDS" if report.stops(attack) else "succeeds")
        say(f"{attack.name:<{width}}" + "".join(f"{cell:<12}" for cell in cells) + attack.tries)
    for report in reports:
        if report.problem:
            say(f"{report.level} does not hold here: {report.problem}")
        else:
            say(f"{report.level}: missing {', '.join(report.missing) or 'nothing'}")
    return good
