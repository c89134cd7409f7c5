"""One pass over the files: rows stay aligned whatever fails, and several methods share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.errors import PluginBroken, UnsupportedPhoto
from vitmae_search.evaluation import find_labelled_photos, instance_views, raw_pixels
from vitmae_search.library import encode_folder
from vitmae_search.library.encode_folder import Encoded, Method, encode
from vitmae_search.photos import PhotoProcesses, decode, digest, read_photo
from vitmae_search.photos.photo_processes import LoadedPhoto

PIXELS = Method("pixels", raw_pixels)


@pytest.fixture
def paths(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> list[Path]:
    """Ten photos, of which number 3 is no picture, and number 7 a copy of number 1."""
    photos = [write_photo(tmp_path / "photos" / f"{seed}.jpg", seed) for seed in range(10)]
    photos[3].write_bytes(b"no picture")
    photos[7].write_bytes(photos[1].read_bytes())
    return photos


def run(paths: Sequence[Path], *methods: Method, **options: Any) -> Encoded:
    return encode(find_labelled_photos(paths[0].parent).files, methods, **options)


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_each_row_is_its_own_photo(paths: list[Path], batch_size: int) -> None:
    found = run(paths, PIXELS, sample=[8, 0, 3, 7, 5], batch_size=batch_size, seed=4)
    assert found.rows.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert found.sample.tolist() == [0, 5, 8]
    assert [Path(failure.path) for failure in found.failures] == [paths[3]]
    assert found.copies == 1
    for row, vector in zip(found.rows, found.vectors[0], strict=True):
        np.testing.assert_array_equal(vector, raw_pixels(decode(paths[row].read_bytes()).image))
    for place, row in enumerate(found.sample):
        data = read_photo(paths[row])
        views = instance_views(decode(data).image, [4, int(digest(data)[:16], 16)])
        for kind, (_, view) in enumerate(views):
            np.testing.assert_array_equal(found.views[0][kind, place], raw_pixels(view))


def test_methods_share_the_pass_and_do_not_mix(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    load = PhotoProcesses.load

    def counted(processes: PhotoProcesses, path: str, shrink_to: int | None = None) -> LoadedPhoto:
        reads.append(path)
        return load(processes, path, shrink_to)

    monkeypatch.setattr(PhotoProcesses, "load", counted)
    embedder = open_embedder(PluginHost().get("color_layout"))
    layout = Method.of_embedder("layout", embedder)
    found = run(paths, layout, PIXELS, sample=[2], batch_size=3)
    assert sorted(reads) == sorted(map(str, paths))
    assert [vectors.shape for vectors in found.vectors] == [(8, 268), (8, 3072)]
    images = [decode(paths[row].read_bytes()).image for row in found.rows]
    np.testing.assert_array_equal(
        found.vectors[0], embedder.embed(np.stack([embedder.prepare(image) for image in images]))
    )
    np.testing.assert_array_equal(found.vectors[1], run(paths, PIXELS).vectors[0])


def test_a_photo_that_one_method_cannot_use_is_left_out_by_all(paths: list[Path]) -> None:
    darkest = raw_pixels(decode(paths[4].read_bytes()).image)

    def embed(rows: np.ndarray) -> np.ndarray:
        if any(np.array_equal(row, darkest) for row in rows):
            raise UnsupportedPhoto(None, "not for me")
        return rows

    picky = Method("picky", raw_pixels, embed)
    found = run(paths, PIXELS, picky, sample=[4, 5])
    assert 4 not in found.rows
    assert found.sample.tolist() == [5]
    assert {Path(failure.path).name: failure.reason for failure in found.failures}["4.jpg"] == "not for me"
    assert len(found.vectors[0]) == len(found.vectors[1]) == 7


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_plugin_that_fails_for_every_picture_is_raised(paths: list[Path], tmp_path: Path) -> None:
    source = (Path(__file__).parents[2] / "plugins/color_layout/__init__.py").read_text("utf-8")
    source = source.replace('"color_layout"', '"broken"').replace("features /= ", "features /= 0 * ")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/broken.py").write_text(source, "utf-8")
    embedder = open_embedder(PluginHost([tmp_path / "plugins"]).get("broken"))
    with pytest.raises(PluginBroken, match="'broken': embed gave NaN"):
        run(paths, Method.of_embedder("broken", embedder))


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    told: list[tuple[int, int]] = []
    found = run([tmp_path / "a.jpg"], PIXELS, sample=[0, 1], on_done=lambda *done: told.append(done))
    assert (len(found.rows), len(found.sample), len(found.failures)) == (0, 0, 2)
    assert told == [(1, 1), (2, 2)]


def test_large_pictures_are_scaled_down_before_they_are_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    Image.new("RGB", (1600, 1200), "teal").save(tmp_path / "large.png")

    def views(image: Image.Image, seed: list[int]) -> Any:
        sizes.append(image.size)
        return instance_views(image, seed)

    monkeypatch.setattr(encode_folder, "instance_views", views)
    run([tmp_path / "large.png"], PIXELS, sample=[0], shrink_to=200)
    assert sizes == [(534, 400)]
