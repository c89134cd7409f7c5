"""The benchmark of a large catalogue, on a small one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.large_catalogue import main
from tests.helpers.postgresql_server import PostgresqlServer
from vitmae_search.catalog import Catalog


@pytest.mark.parametrize("kind", ["a file", "postgresql"])
def test_on_few_photos(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    words, address = [str(tmp_path), "--photos", "3000"], None
    if kind == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        address = server.address(server.create())
        words += ["--catalog", address]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert f"3,000 photos in {kind}, " in result.output
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \| (.+) \|$", result.output, re.M)
    assert len(rows) == 35
    if address is None:  # a server reads a table of few rows whole
        whole = {name: tables for name, _, _, tables in rows}
        assert whole["count: by folder"] == "photos"
        assert {tables for name, tables in whole.items() if not name.startswith(("count", "status"))} == {
            "none"
        }
    with Catalog.open(tmp_path, address) as catalog:
        assert catalog.check() == []
