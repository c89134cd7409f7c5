"""Several processes write to a catalogue on PostgreSQL, and a follower of its revisions misses nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vitmae_search.catalog import Catalog, CatalogWriter

pytestmark = pytest.mark.postgresql_only("a file has one writer")

WRITERS, BATCHES, PHOTOS = 4, 12, 3


class Follower:
    """Holds the ids of a space's vectors, and reads only what came after the revision that it has seen."""

    def __init__(self, catalog: Catalog, space_id: int) -> None:
        self._source = catalog.vector_source(space_id)
        self._revision = 0
        self.ids: set[int] = set()
        self.steps = 0

    def follow(self) -> None:
        revision = self._source.revision()
        if revision == self._revision:
            return
        for ids, _ in self._source.added_since(self._revision):
            self.ids |= set(ids.tolist())
        self.ids -= set(self._source.removed_since(self._revision).tolist())
        self._revision = revision
        self.steps += 1


def test_a_follower_beside_several_writers_misses_nothing(writer, space, make, tmp_path: Path, address):
    together, done = threading.Barrier(WRITERS + 1), threading.Event()

    def write(number: int) -> None:
        with CatalogWriter.open_writer(tmp_path / f"{number}", address) as own:
            together.wait(60)
            for batch in range(BATCHES):
                names = [f"{number} {batch} {photo}" for photo in range(PHOTOS)]
                items = [make.item(f"/p/{name}.jpg", name) for name in names]
                own.record_batch(space, [*items, make.item(f"/p/{number}.jpg", "the same for all")])
                if batch % 3 == 2:
                    own.remove_photos(list(own.photo_ids_at([f"/p/{names[0]}.jpg"]).values()))

    def follow(follower: Follower) -> None:
        together.wait(60)
        while not done.is_set():
            follower.follow()

    with Catalog.open(tmp_path / "reader", address) as reader, ThreadPoolExecutor(WRITERS + 1) as pool:
        follower = Follower(reader, space)
        following = pool.submit(follow, follower)
        for each in [pool.submit(write, number) for number in range(WRITERS)]:
            each.result()
        done.set()
        following.result()
        follower.follow()
        assert follower.steps > WRITERS, "it followed while they wrote"
        assert follower.ids == set(reader.searchable_ids(space).tolist())
        removed = BATCHES // 3
        assert len(follower.ids) == WRITERS * (BATCHES * PHOTOS - removed) + 1
        assert reader.check() == []
