"""Features of views on disk: whatever a kill leaves, the next run makes the same of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vitmae_search.embedding import GuardedEmbedder, PluginHost, open_embedder
from vitmae_search.library.adapt.view_features import ViewFeatures, ViewStore, encode_views
from vitmae_search.photos import stamp_file
from vitmae_search.records import Stamp

WIDTH = 268


@pytest.fixture(scope="module")
def embedder() -> GuardedEmbedder:
    return open_embedder(PluginHost().get("color_layout"))


@pytest.fixture
def files(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> list[Stamp]:
    """Twelve photos, of which the fourth is damaged and the sixth a copy of the first."""
    paths = [write_photo(tmp_path / "photos" / f"{i:02d}.jpg", i) for i in range(12)]
    paths[3].write_bytes(b"\xff\xd8\xff")
    paths[5].write_bytes(paths[0].read_bytes())
    return [stamp_file(str(path)) for path in paths]


def two_views(image: Image.Image, digest: str) -> Iterator[Image.Image]:
    yield image
    yield ImageOps.mirror(image)


def encoded(files: list[Stamp], embedder: GuardedEmbedder, folder: Path, **options: object) -> ViewFeatures:
    store = ViewStore(folder, 2, WIDTH)
    return encode_views(files, embedder, two_views, store, batch_size=6, **options)  # type: ignore[arg-type]


def test_each_photo_has_its_own_views(files: list[Stamp], embedder: GuardedEmbedder, tmp_path: Path) -> None:
    found = encoded(files, embedder, tmp_path / "store")
    assert found.views.shape == (10, 2, WIDTH)
    assert found.views.dtype == np.float16
    assert (len(found.digests), found.copies) == (10, 1)
    assert [Path(failure.path).name for failure in found.failures] == ["03.jpg"]
    used = [files[i].path for i in range(12) if i not in (3, 5)]
    for path, views in zip(used, found.views, strict=True):
        image = Image.open(path).convert("RGB")
        pixels = np.stack([embedder.prepare(view) for view in two_views(image, "")])
        np.testing.assert_allclose(views, embedder.embed(pixels), atol=1e-3)


@pytest.mark.parametrize("stopped_at", range(12))
def test_a_run_that_was_stopped_anywhere_goes_on_to_the_same(
    files: list[Stamp], embedder: GuardedEmbedder, tmp_path: Path, stopped_at: int
) -> None:
    whole = encoded(files, embedder, tmp_path / "whole")

    def stop(done: int, failed: int) -> None:
        if done > stopped_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded(files, embedder, tmp_path / "store", on_done=stop)
    calls: list[tuple[int, int]] = []
    again = encoded(files, embedder, tmp_path / "store", on_done=lambda *counts: calls.append(counts))
    assert_same(again, whole)
    assert calls[-1] == (12, 1)
    assert calls[0][0] > stopped_at - 6  # what had been written is not made again


@pytest.mark.parametrize("cut", [1, 100, WIDTH * 2 * 2, 3000])
@pytest.mark.parametrize("name", ["views.f16", "photos.jsonl"])
def test_files_that_a_kill_cut_short_are_mended(
    files: list[Stamp], embedder: GuardedEmbedder, tmp_path: Path, name: str, cut: int
) -> None:
    whole = encoded(files, embedder, tmp_path / "store")
    whole = ViewFeatures(np.array(whole.views), whole.digests, whole.failures, whole.copies)
    path = tmp_path / "store" / name
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    assert_same(encoded(files, embedder, tmp_path / "store"), whole)


def test_what_is_known_from_elsewhere_is_a_copy(
    files: list[Stamp], embedder: GuardedEmbedder, tmp_path: Path
) -> None:
    first = encoded(files[:3], embedder, tmp_path / "first")
    other = encoded(files, embedder, tmp_path / "other", known=first.digests)
    assert len(other.views) == 7
    assert other.copies == 4


def test_enough_ends_early_and_leaves_the_rest(
    files: list[Stamp], embedder: GuardedEmbedder, tmp_path: Path
) -> None:
    calls = iter([False, False, True])
    found = encoded(files, embedder, tmp_path / "store", stop_early=lambda used: next(calls))
    assert len(found.views) == 3


def assert_same(one: ViewFeatures, other: ViewFeatures) -> None:
    np.testing.assert_allclose(one.views, other.views, atol=1e-3)  # batches differ in size
    assert (one.digests, one.failures, one.copies) == (other.digests, other.failures, other.copies)
