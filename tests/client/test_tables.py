"""Tables for people: what a narrow terminal leaves out."""

import pytest

from rakefarm.client.tables import Sheet

ROW = ("lab1.example.org:6238", "2", "1.5/8", "12.5 GiB")


@pytest.mark.parametrize(
    ("width", "shown"),
    [(200, [0, 1, 2, 3]), (50, [0, 1, 2, 3]), (46, [0, 1, 2]), (40, [0, 1, 2]), (36, [0, 1]), (20, [0, 1])],
)
def test_what_is_least_wanted_goes_first_and_the_rest_stays(width: int, shown: list[int]) -> None:
    sheet = Sheet(("host", "running", "load", "memory"), [ROW], dispensable=("memory", "load"))
    assert sheet.fit(width) == shown


def test_a_table_without_rows_has_its_headings() -> None:
    assert Sheet(("host", "running"), dispensable=("running",)).fit(80) == [0, 1]
