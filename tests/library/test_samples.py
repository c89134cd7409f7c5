"""The sample folder of `demo`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from vitmae_search.library import Library, is_sample_folder, write_samples


def test_samples_are_real_photos_in_ten_views_and_find_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    assert not is_sample_folder(folder)
    count = write_samples(folder)
    files = sorted(folder.glob("*.jpg"))
    assert len(files) == count == 150
    assert is_sample_folder(folder)
    names = {file.name.partition("-")[0] for file in files}
    assert len(names) == 15
    for file in files:
        with Image.open(file) as image:
            image.load()
    before = {file: file.stat().st_mtime_ns for file in files}
    files[3].unlink()
    write_samples(folder)
    assert {f for f in files if f.stat().st_mtime_ns != before[f]} == {files[3]}, (
        "only what is missing is made"
    )

    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        assert library.index(folder).failed == 0
        right = sum(
            hit.photo.path.rpartition("/")[2].startswith(f"{name}-")
            for name in names
            for hit in library.search(folder / f"{name}-00-original.jpg", k=2).hits[1:]
        )
    assert right >= 12, "the nearest other photo is mostly a view of the same"
