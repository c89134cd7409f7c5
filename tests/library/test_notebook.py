"""Results in notebooks: what they answer to `_repr_html_` and `repr`, read as a browser reads it."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from vitmae_search.library import Library

HOSTILE = '<img src=x onerror=alert(1)> & "it\'s".jpg'


class Shown(HTMLParser):
    """The pictures, texts and tags of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pictures: list[Image.Image] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        source = dict(attrs).get("src")
        if source is not None:
            assert source.startswith("data:image/")
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def hostile(library: Library, photos: Path) -> Library:
    """The library with one more photo, whose name is HTML."""
    Image.new("RGB", (400, 200), "red").save(photos / HOSTILE)
    library.index(photos)
    return library


def test_hits_are_small_pictures_with_names_as_text(hostile: Library, photos: Path) -> None:
    found = hostile.search(photos / "odd" / "1.jpg", k=20)
    html = found._repr_html_()
    shown = Shown(html)
    assert len(shown.pictures) == len(found.hits) == 13
    assert max(max(picture.size) for picture in shown.pictures) <= 160
    assert len(html) < 13 * 12_000
    assert HOSTILE in shown.texts
    assert set(shown.tags) == {"div", "b", "figure", "img", "figcaption", "br"}
    assert shown.attributes == {"style", "title", "src", "alt"}
    assert f"1 · {found.hits[0].score:.3f}" in shown.texts
    assert repr(found).startswith("<SearchResult: 13 hits in space ")


def test_many_hits_are_cut(library: Library) -> None:
    hits = library.similar(library.photos()[0].photo_id, k=9).hits
    from dataclasses import replace

    found = library.similar(library.photos()[0].photo_id, k=9)
    many = replace(found, hits=hits * 10)
    shown = Shown(many._repr_html_())
    assert len(shown.pictures) == 24
    assert f"and {10 * len(hits) - 24} more" in shown.texts


def test_a_photo_without_a_thumbnail_is_an_empty_tile(library: Library) -> None:
    for path in (library.folder / "thumbnails").rglob("*.jpg"):
        path.unlink()
    shown = Shown(library.similar(library.photos()[0].photo_id, k=3)._repr_html_())
    assert not shown.pictures
    assert shown.tags.count("figure") == 3


def test_libraries_maps_groups_and_reconstructions(hostile: Library, photos: Path) -> None:
    shown = Shown(hostile._repr_html_())
    assert len(shown.pictures) == 13
    assert repr(hostile) == f"<Library {str(hostile.folder)!r}: 13 photos, 1 spaces>"
    found = hostile.map()
    assert len(Shown(found._repr_html_()).pictures) == len(found.clusters)
    assert repr(found) == f"<PhotoMap: 13 photos by pca in {len(found.clusters)} clusters>"
    groups = hostile.duplicates(min_score=-0.99)
    assert len(Shown(groups._repr_html_()).pictures) == len(groups.groups) >= 1
    made = hostile.reconstruct(Image.new("RGB", (64, 64), "red"), mask_ratio=0.5)
    panels = Shown(made._repr_html_())
    assert [picture.size for picture in panels.pictures] == [made.original.shape[:2]] * 3
    assert "masked" in panels.texts
    assert repr(made).startswith("<Reconstruction: 50% of ")


def test_an_empty_library_shows_itself(tmp_path: Path) -> None:
    with Library.open(tmp_path / "none") as empty:
        assert "0 photos" in empty._repr_html_()
