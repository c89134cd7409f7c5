"""A damaged file is noticed or does no harm; no search finds other photos than it should and says nothing."""

from __future__ import annotations

import pytest

from tests.faults.damages import Patient, Tally
from tests.faults.scenarios import Home, index_command, projection_of, write_photo

pytestmark = pytest.mark.timeout(0)

PHOTOS = 150


@pytest.fixture
def patient(home: Home) -> Patient:
    """A library with every kind of file."""
    home.patches = ("approximate_search",)
    for seed in range(PHOTOS):
        write_photo(home.photos / f"{seed:03d}.jpg", seed)
    home.must(*index_command(home))
    home.must("index", home.photos, "--projection", projection_of(home), "--batch-size", "50")
    home.must("spaces", "use", "2")
    home.must("index", home.photos)
    home.must("classify", "--model", "colours", "--plugin", "plain")
    assert len(list(home.library.glob("vectors/*.approximate"))) == 2
    return Patient(home)


def test_damages_are_noticed_or_do_no_harm(patient, amount, record_property) -> None:
    tally = Tally()
    for seed in range(amount(16, 150, 1000)):
        patient.harm(seed, tally)
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(tally.damages.items()))
    record_property(
        "figures",
        f"damages: {sum(tally.damages.values())} ({kinds}), {tally.said} said by check, "
        f"{len(tally.faults)} faults",
    )
    assert tally.faults == []
