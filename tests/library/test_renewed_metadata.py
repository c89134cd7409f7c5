"""A library of an earlier version learns at `index --rescan` what this one reads of photos besides."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from PIL.ExifTags import IFD, Base

from vitmae_search.library import Library


def forget_lenses(library: Path) -> None:
    """Make the library one that an earlier version has written."""
    raw = sqlite3.connect(library / "catalogue.sqlite3")
    raw.execute("UPDATE contents SET lens = NULL, metadata_revision = NULL")
    raw.commit()
    raw.close()


def test_rescan_reads_lenses_and_keeps_vectors(
    tmp_path: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    photos = tmp_path / "photos"
    for seed in range(3):
        path = write_photo(photos / f"{seed}.jpg", seed)
        exif = Image.Exif()
        exif.get_ifd(IFD.Exif)[Base.LensModel] = f"Lens {seed}"
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        library.index(photos)
        lenses, before = library.count_by("lens"), library.embeddings()
        assert lenses == {"Lens 0": 1, "Lens 1": 1, "Lens 2": 1}
    forget_lenses(tmp_path / "library")
    with Library.open(tmp_path / "library") as library:
        library.index(photos)
        assert library.count_by("lens") == {}
        report = library.index(photos, rescan=True)
        assert (report.unchanged, report.added, report.updated, report.failed) == (3, 0, 0, 0)
        assert library.count_by("lens") == lenses
        after = library.embeddings()
        assert after.paths == before.paths
        assert (after.vectors == before.vectors).all()
        assert {photo.metadata.revision for photo in library.photos()} == {1}
