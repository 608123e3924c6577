"""How near the simulator comes to real servers is reckoned right."""

import pytest

pytest.importorskip("numpy")

from rakefarm.lab.agreement import agreement, agreement_text


def row(mode: str, policy: str, seed: int, makespan_s: float, herd: float = 0.0, lost: int = 0) -> dict[str, object]:
    return {
        "mode": mode,
        "policy": policy,
        "seed": seed,
        "makespan_s": makespan_s,
        "herd": herd,
        "lost": lost,
        "x": "1",
    }


def test_errors_herds_and_the_order_of_policies() -> None:
    rows = [row("sim", "a", 1, 11.0), row("sim", "b", 1, 20.0, 0.5), row("sim", "c", 1, 30.0)]
    rows += [row("farm", "a", 1, 10.0), row("farm", "b", 1, 40.0, 0.25), row("farm", "c", 1, 30.0)]
    found = agreement(rows, ["x"])
    assert found is not None and found.pairs == 3
    assert (found.median_error, found.largest_error) == pytest.approx((0.1, 0.5))
    assert (found.median_herd, found.largest_herd) == pytest.approx((0.0, 0.25))
    assert found.tau == pytest.approx(1 / 3), "two pairs of policies in the same order, one not"
    assert "3 pairs" in agreement_text(found) and "0.33" in agreement_text(found)


def test_what_was_lost_or_has_no_partner_is_in_no_pair() -> None:
    rows = [
        row("sim", "a", 1, 1.0),
        row("farm", "a", 2, 1.0),
        row("sim", "a", 3, 1.0, lost=1),
        row("farm", "a", 3, 1.0),
    ]
    assert agreement(rows, ["x"]) is None
    found = agreement([*rows, row("farm", "a", 1, 1.0)], ["x"])
    assert found is not None and found.pairs == 1 and found.tau is None
