"""Very many photos: as fast at the end as at the beginning, in as much memory."""

from __future__ import annotations

import pytest

from tests.faults.large_library import watch, write_photos

pytestmark = pytest.mark.timeout(0)

PARTS = 4
BYTES_OF_A_VECTOR = 4 * 268


def test_memory_and_rate_are_flat(tmp_path, amount, record_property) -> None:
    count = amount(0, 20_000, 200_000)
    if not count:
        pytest.skip("takes minutes: make torture")
    write_photos(tmp_path / "photos", count)
    first = watch(tmp_path / "library", tmp_path / "photos", {})
    again = watch(tmp_path / "library", tmp_path / "photos", {})
    rates, memory = first.rates(PARTS), first.memory(PARTS)
    record_property(
        "figures",
        f"{count:,} photos of 24 × 24 pixels: {first.seconds:.0f} s; photos/s in each quarter "
        f"{', '.join(f'{rate:.0f}' for rate in rates)}; MB {', '.join(f'{most:.0f}' for most in memory)}; "
        f"unchanged again in {again.seconds:.1f} s",
    )
    assert max(samples.photos for samples in first.samples) == count
    assert again.seconds < 5 + count / 5000
    # Each photo has its row, its stamp and its path in memory; a leaked picture would be ten times as much.
    assert memory[-2] - memory[0] < 50 + count * 0.001
    # At the end the vectors are read once, to write the index file.
    assert memory[-1] - memory[0] < 100 + 2 * count * BYTES_OF_A_VECTOR / 1e6
