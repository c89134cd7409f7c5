"""What the parameters of an address say of filters, and how that is said in words."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import pytest

from vitmae_search.library import Library
from vitmae_search.web.components.filter_parameters import read_filters, read_order, span_text

TODAY = date.today()


def test_a_relative_date_counts_from_today(opened: Library) -> None:
    found = read_filters({"after": "30d"})
    assert found.where.after == datetime.combine(TODAY - timedelta(30), time.min)
    assert span_text(found) == "last 30 days"


@pytest.mark.parametrize("text", ["30", "d", "-3d", "3.5d", "99999d", "³d", "30d "])
def test_what_is_no_relative_date_is_none(opened: Library, text: str) -> None:
    found = read_filters({"after": text})
    assert (found.where.after is None) == (text != "30d ")


@pytest.mark.parametrize(
    ("after", "before", "words"),
    [
        ("2024-01-01", "2024-12-31", "2024"),
        ("2024-02-01", "2024-02-29", "February 2024"),
        ("2023-02-01", "2023-02-28", "February 2023"),
        ("2024-02-03", "2024-02-03", "3 February 2024"),
        ("2024-02-01", "2024-03-31", "1 February 2024 to 31 March 2024"),
        ("2024-02-01", "", "from 1 February 2024"),
        ("", "2024-02-01", "until 1 February 2024"),
        ("", "", None),
    ],
)
def test_days_in_words(opened: Library, after: str, before: str, words: str | None) -> None:
    assert span_text(read_filters({"after": after, "before": before})) == words


def test_unknown_values_are_no_filters(opened: Library) -> None:
    assert read_filters({"shape": "round", "tag": "nothing has it", "type": " "}).where.empty
    assert read_order({"sort": "random"}) is None
    assert read_order({"sort": "name"}) == "name"
