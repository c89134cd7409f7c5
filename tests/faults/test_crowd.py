"""Two writers, readers that stay, a repair and a dropped space at once: nobody is locked out."""

from __future__ import annotations

import pytest

from tests.faults.crowd import ROLES, start
from tests.faults.scenarios import Home, index_command, write_photo
from tests.faults.truth import Truth, wrong_hits

pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize("patches", [(), ("rollback_journal",)], ids=["wal", "delete"])
def test_a_crowd_at_one_library(home, patches, amount, record_property) -> None:
    home.patches = patches
    write_photo(home.photos / "still.jpg", 1)
    home.must(*index_command(home))
    members = {role: start(role, home, amount(4, 60, 300)) for role in ROLES}
    said = {role: process.communicate()[0].splitlines() for role, process in members.items()}
    faults = [line for lines in said.values() for line in lines if not line.startswith("turns: ")]
    turns = {role: int(lines[-1].removeprefix("turns: ")) for role, lines in said.items() if not faults}
    record_property(
        "figures", f"crowd ({'DELETE' if patches else 'WAL'}): turns {turns}, {len(faults)} faults"
    )
    assert faults == []
    assert_same_as_a_new_one(home)


def assert_same_as_a_new_one(home: Home) -> None:
    """After the crowd, the library is brought up to date and is as one that was made of the same photos."""
    home.must(*index_command(home))
    home.must("prune")
    home.must("check")
    truth = Truth.of(home.library)
    fresh = home.folder / "fresh"
    assert home.run(*index_command(home), library=fresh).code == 0
    assert truth.photos == Truth.of(fresh).photos
    own = {key: vector for key, vector in truth.vectors.items() if key[0] == truth.spaces[0]}
    assert own.keys() == Truth.of(fresh).vectors.keys()
    query = str(home.photos / "still.jpg")
    assert wrong_hits(truth, query, home.must("search", query, "--json").json["hits"], 10) == []
