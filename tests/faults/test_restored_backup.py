"""A catalogue that is put back from a backup, and indexed on, never meets the index of another history."""

from __future__ import annotations

import shutil

from tests.faults.scenarios import Home, index_command, write_photo
from tests.faults.truth import Truth, wrong_hits

FILE = "catalogue.sqlite3"


def wrong_after_a_restore(home: Home) -> list[str]:
    """Index, back up, add photos, put the backup back, and add others at the same revision."""
    for seed in range(8):
        write_photo(home.photos / f"{seed}.jpg", seed)
    home.must(*index_command(home))
    backup = home.folder / FILE
    shutil.copy(home.library / FILE, backup)
    for seed in (100, 200):
        for number in range(8):
            write_photo(home.photos / f"new-{number}.jpg", seed + number)
        home.must(*index_command(home))
        if seed == 100:
            for end in ("-wal", "-shm"):
                (home.library / (FILE + end)).unlink(missing_ok=True)
            shutil.copy(backup, home.library / FILE)
    truth = Truth.of(home.library)
    query = str(home.photos / "new-0.jpg")
    return wrong_hits(truth, query, home.must("search", query, "--json", "-k", "5").json["hits"], 5)


def test_a_restored_backup_finds_what_it_holds(home) -> None:
    assert wrong_after_a_restore(home) == []


def test_a_revision_without_identity_is_noticed(home) -> None:
    home.patches = ("no_identity",)
    assert wrong_after_a_restore(home)
