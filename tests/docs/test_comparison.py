"""What the table of features says of this program is proved by a test, and of others by a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "comparison.md").read_text("utf-8")
TABLE = PAGE.split("## Features")[1].split("## When to use")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", TABLE, re.M)
]


@pytest.mark.parametrize("row", ROWS[2:], ids=lambda row: str(row[0]))
def test_each_feature_has_its_test(row: list[str]) -> None:
    assert len(row) == 8
    if row[1].startswith("**no**"):
        return
    links = re.findall(r"\]\(([^)]+)\)", row[1])
    assert links
    for link in links:
        assert re.search(r"^ *def test_", (DOCS / link).read_text("utf-8"), re.M), link


def test_each_number_is_a_page() -> None:
    numbers = {cell for row in ROWS[2:] for cell in row[2:] if cell != "–"}
    assert numbers == set(re.findall(r"^(\d+) \[", TABLE, re.M))
