"""What commands try, really tried: each attack is seen to succeed at level none, and to fail where it must."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from ordinary_user import NoOrdinaryUser, attack_as_ordinary_user

from rakefarm.levels import LEVELS
from rakefarm.server.attack_table import BEGIN, document_with, rows_of
from rakefarm.server.attacks import ATTACKS, NEVER
from rakefarm.server.selftest import LevelReport, attack_levels

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"
CORE = ("read a secret", "write to /tmp", "TCP", "kill a stranger", "trace its executor", "a daemon", "io_uring")


def check(reports: Sequence[LevelReport]) -> None:
    """Every level that holds here stops what it must; and what is stopped above none succeeds there."""
    wrong = []
    for report in reports:
        for attack in ATTACKS:
            if attack.name not in report.succeeded:
                continue
            if report.succeeded[attack.name] and report.stops(attack):
                wrong.append(f"{attack.name} succeeds at {report.level}")
            if report.level == "none" and attack.stopped_from != NEVER and not report.succeeded[attack.name]:
                wrong.append(f"{attack.name} proves nothing: it fails at none")
    assert not wrong
    assert not reports[0].problem and {report.level for report in reports} <= set(LEVELS)


def test_the_core_of_them() -> None:
    told: list[str] = []
    attacks = [attack for attack in ATTACKS if attack.name in CORE]
    reports = attack_levels(attacks=attacks, tell=told.append)
    for report in reports:
        if not report.problem:
            assert f"{report.level}: attack {len(attacks)} of {len(attacks)}: {attacks[-1].name}" in told
    check(reports)
    assert {len(report.succeeded) for report in reports if not report.problem} == {len(CORE)}


@pytest.mark.slow
def test_all_of_them_and_the_document() -> None:
    own = attack_levels()
    check(own)
    if os.geteuid():
        as_user, as_root = own, None
    else:
        try:
            as_user, as_root = attack_as_ordinary_user(), own
        except NoOrdinaryUser as error:
            pytest.skip(f"as root all is well; as an ordinary user: {error}")
        check(as_user)
    if as_root is None or any(report.problem for report in (*as_user, *as_root)):
        pytest.skip("the document shows all levels, for root as well")
    assert document_with(DOCUMENT.read_text(), rows_of(as_user, as_root)) == DOCUMENT.read_text(), (
        "run python scripts/attack_levels.py"
    )


def test_the_document_has_every_attack_and_no_more() -> None:
    table = DOCUMENT.read_text().partition(BEGIN)[2].partition("<!-- end -->")[0]
    rows = [line.split(" | ") for line in table.strip().splitlines()[2:]]
    assert [row[0].removeprefix("| ") for row in rows] == [attack.name for attack in ATTACKS]
    assert [row[1] for row in rows] == [attack.tries for attack in ATTACKS]
    for attack, row in zip(ATTACKS, rows, strict=True):
        for level, cell in zip(LEVELS, row[2:], strict=True):
            report = LevelReport(level)
            assert not report.stops(attack) or "succeeds" not in cell.replace("**succeeds**, stopped as root", "")
