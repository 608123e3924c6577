"""Whether hosts are asked for results that they may have: as long as it pays."""

from rakefarm.cc.holders import EACH, Holders
from rakefarm.client.farm import Farm
from rakefarm.config import ClientSettings
from rakefarm.events import Stream


def holders() -> Holders:
    return Holders(Farm([], ClientSettings(), {}, Stream("run", [])))


def asked(of: Holders, calls: int, found: bool) -> int:
    """How many of so many calls ask, when each question ends so."""
    count = 0
    for _ in range(calls):
        if of.pays:
            count += 1
            of.learn(found)
    return count


def test_each_call_asks_while_results_are_found() -> None:
    assert asked(holders(), 50, found=True) == 50


def test_questions_in_vain_become_few_and_never_none() -> None:
    made = holders()
    assert asked(made, 20, found=False) < 12
    assert asked(made, 20 * EACH, found=False) == 20


def test_one_result_has_all_ask_again() -> None:
    made = holders()
    asked(made, 100, found=False)
    made.learn(found=True)
    assert asked(made, 20, found=True) == 20
