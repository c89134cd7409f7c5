"""Which photos a filter lets through."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vitmae_search.catalog import Catalog
from vitmae_search.catalog.photos import folder_range, with_photo_on_disk
from vitmae_search.errors import LibraryError
from vitmae_search.records import SearchFilter

PATHS = [
    "/a/b/1.jpg",
    "/a/b/deep/er/2.jpg",
    "/a/bc/3.jpg",
    "/a/b.jpg",
    "/a/b-/4.jpg",
    "/a/b0/5.jpg",
    "/a/b%/6.jpg",
    "/a/b_/7.jpg",
    "/a/bx/8.jpg",
    "/a/B/9.jpg",
    "/a/📷 'q\"/10.jpg",
    "/a/new\nline/11.jpg",
    "/a/" + os.fsdecode(b"caf\xe9") + "/12.jpg",
    "/a/" + os.fsdecode(b"\xff\xff") + "/13.jpg",
    "/14.jpg",
]


@pytest.fixture
def filled(writer, space, make):
    writer.record_batch(space, [make.item(path, path) for path in PATHS])
    return writer


@pytest.mark.parametrize(
    "under",
    ["/a/b", "/a/b/", "/a//b/.", "/a/b%", "/a/b_", "/a/B", "/a/📷 'q\"", "/a/new\nline", "/", "//", "/a",
     os.fsdecode(b"/a/caf\xe9"), os.fsdecode(b"/a/\xff\xff"), "/nowhere", "/a/b/1.jpg"],
)  # fmt: skip
def test_under_ends_at_a_folder(filled, space, under):
    clean = os.fsencode(os.path.normpath(under)).rstrip(b"/") + b"/"
    expected = {path for path in PATHS if os.fsencode(path).startswith(b"/" + clean.lstrip(b"/"))}
    where = SearchFilter(under=under)
    assert {photo.path for photo in filled.photos(where)} == expected
    assert filled.count_photos(where) == len(expected)
    assert {known.stamp.path for known in filled.known_files(under, space)} == expected
    found = filled.photos_of(filled.searchable_ids(space, where))
    assert {photo.path for photos in found.values() for photo in photos} == expected


def test_root_holds_all(filled):
    assert filled.count_photos(SearchFilter(under="/")) == len(PATHS)


NAMES = st.binary(min_size=1, max_size=3).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in {b".", b".."}
)


@given(st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, min_size=1, max_size=4))
@example([b"a"], [b"a0"])
@example([b"\xff"], [b"\xff\xff"])
def test_a_folder_is_a_range_of_bytes(folder, path):
    low, high = folder_range(os.fsdecode(b"/" + b"/".join(folder)))
    inside = len(path) > len(folder) and path[: len(folder)] == folder
    assert (low <= b"/" + b"/".join(path) < high) == inside


def test_dates_are_inclusive_and_cameras_ignore_case(writer, space, make):
    taken = [datetime(2020, 5, day, 12, 30) for day in (1, 2, 3)]
    cameras = ["Canon EOS 5D", "NIKON D5", "Фотоаппарат ЗЕНИТ"]
    items = [make.item(f"/p/{n}.jpg", f"w{n}", taken_at=t, camera=c)
             for n, (t, c) in enumerate(zip(taken, cameras, strict=True))]  # fmt: skip
    writer.record_batch(space, [*items, make.item("/p/none.jpg", "none", mtime_ns=2**62)])

    def found(**where) -> list[str]:
        return [photo.path[3:-4] for photo in writer.photos(SearchFilter(**where))][::-1]

    assert found(after=taken[1]) == ["1", "2", "none"]
    assert found(before=taken[1]) == ["0", "1"]
    assert found(after=taken[1], before=taken[1]) == ["1"]
    assert found(after=taken[1].replace(microsecond=1), before=taken[2]) == ["2"]
    assert found(after=taken[1].replace(tzinfo=UTC)) == ["1", "2", "none"]
    assert found(camera="eos") == ["0"]
    assert found(camera="зенит") == ["2"]
    assert found(camera="o") == ["0", "1"]  # a Latin o, which the Cyrillic name has not
    assert found(camera="%") == []
    assert found(camera="no such") == []
    assert len(found(camera="", under="")) == 4
    assert found(camera="O", after=taken[1]) == ["1"]


FILTERS = st.builds(
    SearchFilter,
    under=st.sampled_from([None, "/p", "/p/a", "/p/ab", "/q"]),
    after=st.sampled_from([None, datetime(2020, 1, 2), datetime(2020, 1, 4)]),
    before=st.sampled_from([None, datetime(2020, 1, 2), datetime(2020, 1, 4)]),
    camera=st.sampled_from([None, "can", "5D", "x"]),
    tag=st.sampled_from([None, "", "pet", "bird", "Pet"]),
    min_confidence=st.sampled_from([0.0, 0.5, 1.0]),
)
PHOTOS = st.lists(
    st.tuples(
        st.sampled_from(["/p/1.jpg", "/p/a/2.jpg", "/p/a/3.jpg", "/p/ab/4.jpg", "/q/5.jpg", "/p/a/c/6.jpg"]),
        st.sampled_from(["cat", "dog", "owl"]),
        st.booleans(),
    ),
    unique_by=lambda photo: photo[0],
)
FACTS = {
    "cat": (datetime(2020, 1, 2), "Canon 5D"),
    "dog": (datetime(2020, 1, 4), "nikon"),
    "owl": (None, None),
}
UNDATED = datetime.fromtimestamp(1e-9)  # the time of the files
TAGS = {"cat": [("pet", 0.5), ("bird", 0.25)], "dog": [("pet", 0.75)], "owl": [("bird", 1.0)]}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(photos=PHOTOS, where=FILTERS)
def test_filters_combine(writer, space, make, photos, where):
    """Against the same filter in plain Python, in all three ways of asking."""

    def passes(path: str, word: str) -> bool:
        taken, camera = FACTS[word][0] or UNDATED, FACTS[word][1]
        return (
            (where.under is None or path.startswith(where.under + "/"))
            and (where.after is None or taken >= where.after)
            and (where.before is None or taken <= where.before)
            and (where.camera is None or (camera is not None and where.camera.lower() in camera.lower()))
            and (not where.tag or dict(TAGS[word]).get(where.tag, -1) >= where.min_confidence)
        )

    writer.remove_photos([photo.photo_id for photo in writer.photos(missing=None)])
    items = [make.item(p, w, taken_at=FACTS[w][0], camera=FACTS[w][1]) for p, w, _ in photos]
    writer.record_batch(space, items)
    classifier = writer.ensure_classifier(fingerprint="f", source="s", model="m")
    there = {word: writer.content_id(make.digest(word)) for _, word, _ in photos}
    writer.record_tags(classifier, [(number, TAGS[word]) for word, number in there.items()])
    writer.mark_missing([make.photo_at(writer, path).photo_id for path, _, missing in photos if missing])
    expected = {path for path, word, missing in photos if not missing and passes(path, word)}
    assert {photo.path for photo in writer.photos(where)} == expected
    assert writer.count_photos(where) == len(expected)
    found = {photos[0].digest for photos in writer.photos_of(writer.searchable_ids(space, where)).values()}
    assert found == {make.digest(word) for path, word, _ in photos if path in expected}
    on_disk = {word for _, word, missing in photos if not missing}
    hidden = {photos[0].digest for photos in writer.photos_of(writer.hidden_ids(space)).values()}
    assert hidden == {make.digest(word) for _, word, _ in photos if word not in on_disk}


@pytest.fixture
def in_tokyo(monkeypatch):
    """The local time is nine hours ahead of UTC; afterwards it is what it was."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_a_photo_without_tags_has_the_date_in_its_name_or_that_of_its_file(writer, space, make):
    named = datetime(2015, 6, 7)
    changed = int(datetime(2016, 1, 1, 2, tzinfo=timezone(timedelta(hours=9))).timestamp()) * 10**9
    tagged = make.item("/p/tagged.jpg", "a", taken_at=datetime(2014, 1, 1), mtime_ns=changed)
    writer.record_batch(space, [
        replace(tagged, named_at=named),
        replace(make.item("/p/named.jpg", "b", mtime_ns=changed), named_at=named),
        make.item("/p/copy of b.jpg", "b", mtime_ns=changed),
    ])  # fmt: skip
    dates = {photo.path: photo.date for photo in writer.photos()}
    assert dates == {
        "/p/copy of b.jpg": (datetime(2016, 1, 1, 2), "file"),
        "/p/named.jpg": (named, "file name"),
        "/p/tagged.jpg": (datetime(2014, 1, 1), "EXIF"),
    }
    for path, (date, _) in dates.items():
        assert [photo.path for photo in writer.photos(SearchFilter(after=date, before=date))] == [path]
    assert list(dates) == ["/p/copy of b.jpg", "/p/named.jpg", "/p/tagged.jpg"], "newest first"


def test_notes_are_kept(writer, space, make):
    item = make.item("/p/a.jpg", "a")
    metadata = replace(item.metadata, notes=("its place is not used",), taken_from="XMP")
    writer.record_batch(space, [replace(item, metadata=metadata), make.item("/p/b.jpg", "b")])
    assert make.photo_at(writer, "/p/a.jpg").metadata == metadata
    assert make.photo_at(writer, "/p/b.jpg").metadata.notes == ()


def test_newest_first_and_page_by_page(writer, space, make):
    items = [
        make.item("/p/taken.jpg", "a", taken_at=datetime(2022, 1, 1)),
        make.item("/p/changed.jpg", "b", mtime_ns=int(datetime(2023, 1, 1, tzinfo=UTC).timestamp()) * 10**9),
        make.item("/p/old.jpg", "c", taken_at=datetime(1999, 1, 1)),
        make.item("/p/ancient.jpg", "d", taken_at=datetime(1890, 1, 1)),
    ]
    writer.record_batch(space, items)
    assert [photo.path[3:-4] for photo in writer.photos()] == ["changed", "taken", "old", "ancient"]
    assert [photo.path[3:-4] for photo in writer.photos(offset=1, limit=2)] == ["taken", "old"]
    assert writer.photos(offset=9) == []


@pytest.mark.sqlite_only("reads SQLite's plans")
@pytest.mark.parametrize(
    ("where", "selects"),
    [(SearchFilter(under="/p"), "path>"), (SearchFilter(camera="can"), "camera="),
     (SearchFilter(after=datetime(2020, 1, 1)), "moment>"),
     (SearchFilter(under="/p", camera="can", before=datetime(2020, 1, 1)), "camera="),
     (SearchFilter(tag="pet", min_confidence=0.5), "tag="),
     (SearchFilter(tag="pet", under="/p", camera="can"), "tag=")],
    ids=["under", "camera", "after", "all", "tag", "tag and all"],
)  # fmt: skip
def test_filters_never_walk_a_whole_table(writer, space, make, where, selects):
    """As SQLite itself says: no table is scanned, and no page of vectors is read to know an id."""
    items = [make.item(f"/p/{n}.jpg", f"w{n}", camera="Canon") for n in range(50)]
    writer.record_batch(space, items)
    with writer._database.read_transaction() as connection:
        statement = with_photo_on_disk(connection, where, space)
        sql = statement.compile(connection, compile_kwargs={"render_postcompile": True})
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {sql}", tuple(sql.params[name] for name in sql.positiontup)
        )
        steps = [row[3] for row in plan]
    assert not [step for step in steps if step.startswith("SCAN")], steps
    assert [step for step in steps if "embeddings USING COVERING INDEX" in step], steps
    assert [step for step in steps if selects in step], steps
    # That a photo is on disk selects nothing: nearly all are.
    assert not [step for step in steps if "(missing=" in step], steps


def test_reading_from_a_reader_gives_the_same(address, filled, folder, space):
    with Catalog.open(folder, address) as reader:
        assert reader.photos() == filled.photos()
        assert list(reader.known_files("/a", space)) == list(filled.known_files("/a", space))


@pytest.mark.parametrize("number", [2**63, 2**70, -(2**70)])
def test_numbers_beyond_64_bits_are_of_no_photo(writer, space, make, number):
    """SQLite's driver refuses them, and PostgreSQL compares most of them: neither is the library's fault."""
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    with suppress(LibraryError):
        assert writer.photo(number) is None
    assert writer.count_photos() == 1


def test_text_that_is_no_unicode_is_named(writer, space, make):
    """Half of a pair of surrogates comes from a command line in another encoding."""
    writer.record_batch(space, [make.item("/p/a.jpg", "cat")])
    with pytest.raises(LibraryError, match=r"'caf\\udce9' is no text"):
        writer.count_photos(SearchFilter(tag="caf\udce9"))
    assert writer.count_photos() == 1
