"""A run plans by the features, and brings what is derived from them along."""

import numpy as np
import pytest

from vitmae_search.errors import SpaceError
from vitmae_search.vectors import VectorCache


def test_a_run_reports_and_keeps_the_index_of_the_space_that_is_searched(bench, fill, new_head):
    bench.heads = [new_head(0), new_head(1)]
    fill(9)
    report = bench.index()
    with bench.catalog() as catalog:
        features, *derived = catalog.spaces()
        assert [space.parent_id for space in derived] == [features.space_id] * 2
        assert report.space == derived[1].space_id
        assert VectorCache(bench.library / "vectors").keys() == [derived[1].fingerprint]
    bench.assert_mirrors_disk()


def test_what_fails_beside_a_photo_does_not_move_its_derived_vector(bench, fill, new_head):
    bench.heads = [new_head(0)]
    paths = fill(14)
    paths[2].write_bytes(paths[2].read_bytes()[:400])
    paths[5].write_bytes(b"no photo")
    bad = bench.vector_of(paths[9].read_bytes())

    def refuse(row):
        vector = row.reshape(-1).astype(np.float32) + 1
        if np.allclose(vector / np.linalg.norm(vector), bad, atol=1e-6):
            raise RuntimeError("not this one")

    bench.plugin.before_row = refuse
    report = bench.index()
    assert (report.added, report.failed) == (11, 3)
    with bench.catalog() as catalog:
        bench.assert_in_step(catalog, catalog.spaces()[0])
    bench.plugin.before_row = lambda row: None
    assert bench.index(retry_failed=True).added == 1
    paths[2].unlink(), paths[5].unlink()
    bench.index()
    bench.assert_mirrors_disk()


def test_nothing_is_read_again_for_a_projection_that_comes_later(bench, fill, new_head):
    fill(9)
    bench.index()
    bench.heads = [new_head(0)]
    report = bench.index()
    assert (report.unchanged, bench.embedded) == (9, 0)
    bench.assert_mirrors_disk()


def test_moves_copies_and_removed_photos_keep_both_in_step(bench, fill, new_head):
    bench.heads = [new_head(0)]
    paths = fill(9)
    bench.index()
    paths[0].rename(bench.photos / "moved.jpg")
    (bench.photos / "copy.jpg").write_bytes(paths[1].read_bytes())
    data = paths[2].read_bytes()
    paths[2].write_bytes(paths[3].read_bytes()), paths[3].write_bytes(data)
    paths[4].unlink()
    report = bench.index()
    assert (report.moved, report.missing, bench.embedded) == (1, 1, 0)
    bench.assert_mirrors_disk()
    with bench.catalog() as catalog:
        [gone] = catalog.photos(missing=True)
        catalog.remove_photos([gone.photo_id])
        assert [space.vectors for space in catalog.spaces()] == [8, 8]
        bench.assert_in_step(catalog, catalog.spaces()[0])


def test_a_run_that_lacks_a_projection_records_nothing(bench, fill, new_head):
    bench.heads = [new_head(0)]
    fill(3)
    bench.index()
    bench.heads = []
    fill(4, start=3)
    with pytest.raises(SpaceError, match="would fall behind"):
        bench.index()
    bench.heads = [new_head(0)]
    with bench.catalog() as catalog:
        assert catalog.count_photos() == 3
        bench.assert_in_step(catalog, catalog.spaces()[0])
    assert bench.index().added == 4
    bench.assert_mirrors_disk()
