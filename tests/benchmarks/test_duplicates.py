"""The benchmark of near-duplicates finds the copies that it made."""

from __future__ import annotations

from benchmarks.duplicates import measure


def test_every_copy_is_found() -> None:
    found = measure(2000, 256)
    assert found["groups"] == 100
    assert found["seconds"] > 0
