"""Photos in an order, batch after batch, and counts of them by kind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image
from sqlalchemy import event

from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.records import Photo, PhotoOrder, SearchFilter


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Thirty photos in three folders, ten of them of one moment; half are upright, some PNG, two cameras."""
    base = tmp_path_factory.mktemp("browse")
    for number in range(30):
        folder = base / "photos" / ("a", "a/b", "c é")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (40, 30) if number % 2 else (30, 40), (8 * number, 100, 20))
        exif = Image.Exif()
        if number % 5:
            exif[0x0110] = "Pixel 7" if number % 4 else "EOS 80D"
        day = 1 if number < 10 else number - 8
        exif.get_ifd(0x8769)[0x9003] = f"{2020 + number % 3}:{1 + number % 12:02}:{day:02} 08:09:10"
        if number < 10:
            exif.get_ifd(0x8769)[0x9003] = "2019:05:06 07:08:09"
        image.save(folder / f"{29 - number:02}.{'png' if number % 7 == 0 else 'jpg'}", exif=exif)
    with Library.open(base / "library", embedder="color_layout") as library:
        library.index([base / "photos"])
        with CatalogWriter.open_writer(base / "library") as writer:
            classifier = writer.ensure_classifier(fingerprint="f", source="s", model="m")
            tags = [(photo.content_id, [("cat", photo.photo_id / 40)]) for photo in writer.photos()[:12]]
            writer.record_tags(classifier, tags)
        yield library


@pytest.mark.parametrize(
    "where", [SearchFilter(), SearchFilter(camera="pixel"), SearchFilter(under="photos")]
)
@pytest.mark.parametrize("order", get_args(PhotoOrder))
def test_an_order_is_read_from_an_index_and_not_sorted(
    library: Library, order: PhotoOrder, where: SearchFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitmae_search.catalog.photos._MANY", 5)
    if where.under:
        where = SearchFilter(under=os.fspath(library.folder.with_name(where.under)))
    sent: list[tuple[str, tuple[object, ...]]] = []
    database = library._catalog()._database
    event.listen(
        database._engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, values, *rest: sent.append((statement, values)),
    )
    first = library.browse(where, order=order, limit=3)
    library.browse(where, order=order, after=first[-1].photo_id, limit=3)
    listed = [(text, values) for text, values in sent if "ORDER BY" in text and "LIMIT" in text]
    assert len(listed) == 2
    with database.read_transaction() as connection:
        for text, values in listed:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
            assert not any("TEMP B-TREE" in row[3] for row in plan)


def test_counts_look_no_photo_up_in_an_index(library: Library) -> None:
    """Of 100,000 photos that would take five times as long as to read the table."""
    sent: list[str] = []
    database = library._catalog()._database
    event.listen(
        database._engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, *rest: sent.append(statement),
    )
    for kind in ("folder", "month", "size", "format", "orientation"):
        library.count_by(kind, SearchFilter(format="JPEG"))
    counts = [text for text in sent if "missing" in text]
    assert len(counts) == 5
    assert not any("missing = 0" in text for text in counts)


@pytest.mark.parametrize("most", [2, 1000])
def test_ranges_are_read_from_the_table_where_most_photos_are_in_them(
    library: Library, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("vitmae_search.catalog.photos._MANY", most)
    everything = library.photos()
    where = SearchFilter(min_bytes=1, max_bytes=10**6 + most, after=datetime(2000, 1, 1))  # not counted yet
    sent: list[str] = []
    event.listen(
        library._catalog()._database._engine,
        "before_cursor_execute",
        lambda conn, cursor, statement, *rest: sent.append(statement),
    )
    assert sum(library.count_by("month", where).values()) == len(everything)
    (count,) = [text for text in sent if "strftime" in text]
    assert ("missing = 0" in count) == (most > len(everything))
    assert library.browse(where, order="name", limit=1000) == library.browse(order="name", limit=1000)
    found = library.similar(everything[0].photo_id, k=100, where=where)
    assert len(found.hits) == len(library.similar(everything[0].photo_id, k=100).hits)
    size = sorted(photo.size for photo in everything)[5]
    few = replace(where, max_bytes=size)
    assert {photo.photo_id for photo in library.browse(few, limit=1000)} == {
        photo.photo_id for photo in everything if photo.size <= size
    }


def test_whether_there_is_any(library: Library, tmp_path: Path) -> None:
    with Library.open(tmp_path / "none") as empty:
        assert not empty.has_any("tag")
    assert library.has_any("tag")
    assert not library.has_any("lens")
    assert not library.has_any("place")
    assert not library.has_any("favourite")
    first = library.photos()[0].photo_id
    library.mark([first], favourite=True, rating=2)
    assert library.has_any("favourite")
    assert library.has_any("rating")
    library.mark([first], favourite=False, rating=0)
    assert not library.has_any("rating")


def moment(photo: Photo) -> datetime:
    date, _ = photo.date
    assert date is not None
    return date


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("order", ["newest", "oldest", "name", "largest"])
@pytest.mark.parametrize("where", [SearchFilter(), SearchFilter(camera="pixel", orientation="portrait")])
def test_batches_follow_each_other_without_gap_or_repetition(
    library: Library, order: PhotoOrder, limit: int, where: SearchFilter
) -> None:
    found: list[Photo] = []
    after = None
    while batch := library.browse(where, order=order, after=after, limit=limit):
        found += batch
        after = batch[-1].photo_id
    expected = {
        "newest": lambda photo: (-moment(photo).timestamp(), -photo.photo_id),
        "oldest": lambda photo: (moment(photo).timestamp(), photo.photo_id),
        "name": lambda photo: os.fsencode(photo.path),
        "largest": lambda photo: (-photo.size, -photo.photo_id),
    }[order]
    assert found == sorted(library.photos(where), key=expected)
    assert found


def test_nothing_follows_a_photo_that_is_gone(library: Library) -> None:
    assert library.browse(after=10**6) == []


def test_counts_are_those_of_the_photos_themselves(library: Library) -> None:
    for where in (SearchFilter(), SearchFilter(format="JPEG"), SearchFilter(after=datetime(2020, 1, 1))):
        photos = library.photos(where)
        assert library.count_by("folder", where) == Counter(os.path.dirname(p.path) for p in photos)
        assert library.count_by("month", where) == Counter(f"{moment(p):%Y-%m}" for p in photos)
        assert library.count_by("format", where) == Counter(p.metadata.format for p in photos)
        assert library.count_by("camera", where) == Counter(
            p.metadata.camera for p in photos if p.metadata.camera
        )
        upright = Counter("portrait" if p.metadata.height > p.metadata.width else "landscape" for p in photos)
        assert library.count_by("orientation", where) == upright
        tagged = [photo for photo in photos if library.tags(photo.photo_id)]
        assert library.count_by("tag", where) == ({"cat": len(tagged)} if tagged else {})
    assert next(iter(library.count_by("month"))) == "2019-05"


def test_marks_and_albums_are_counted(library: Library) -> None:
    photos = library.photos()
    library.mark([photo.photo_id for photo in photos[:4]], favourite=True)
    library.mark([photo.photo_id for photo in photos[2:5]], rating=3)
    library.add_to_album("best", [photo.photo_id for photo in photos[:2]])
    assert library.count_by("favourite") == {"on": 4}
    assert library.count_by("rating") == {"3": 3}
    assert library.count_by("album") == {"best": 2}
    assert library.count_by("rating", SearchFilter(favourite=True)) == {"3": 2}
    assert library.browse(SearchFilter(favourite=True, min_rating=2)) == photos[2:4]


def test_new_filters_hold_for_searches_too(library: Library) -> None:
    one = library.photos()[0]
    for where in (SearchFilter(format="PNG"), SearchFilter(orientation="landscape")):
        hits = library.similar(one.photo_id, k=100, where=where).hits
        expected = {photo.photo_id for photo in library.photos(where)} - {one.photo_id}
        assert {hit.photo.photo_id for hit in hits} == expected


def test_a_library_that_is_not_there_yet_has_nothing_to_browse(tmp_path: Path) -> None:
    with Library.open(tmp_path / "none") as empty:
        assert empty.browse() == []
        assert empty.count_by("folder") == {}


def test_counts_of_many_filters_do_not_pile_up(library: Library) -> None:
    for number in range(100):
        library.count_by("month", SearchFilter(camera=str(number)))
    assert library.count_by("month", SearchFilter(camera="8"))
    assert len(library._catalog()._database._cache.entries) <= 64
