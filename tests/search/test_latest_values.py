"""Values that were used last, which patch tokens, reconstructions and sessions are kept in."""

from __future__ import annotations

from vitmae_search.latest_values import LatestValues


def test_what_is_kept_is_bound_by_its_bytes() -> None:
    kept = LatestValues[str, bytes](len, 100)
    made = [kept.get_or_compute(key, lambda: bytes(40)) for key in ("one", "two", "three")]
    assert kept.get_or_compute("three", lambda: b"") is made[2]
    assert kept.get_or_compute("two", lambda: b"") is made[1]
    assert kept.get_or_compute("one", lambda: bytes(200)) == bytes(200), "the oldest was dropped"
    assert kept.get_or_compute("two", lambda: b"") == b"", "all others were, for a large one"


def test_a_value_in_place_of_another_counts_once() -> None:
    kept = LatestValues[str, bytes](len, 100)
    kept.put("one", bytes(60))
    for _ in range(3):
        kept.put("two", bytes(40))
    assert kept.get("one") == bytes(60)
    kept.put("two", bytes(41))
    assert kept.get("one") is None
