"""What is said of a photo."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from vitmae_search.records import Photo, PhotoMetadata
from vitmae_search.web.components.photo_facts import photo_facts

PHOTO = Photo(
    photo_id=1,
    path="/p/a.jpg",
    size=1000,
    mtime_ns=int(datetime(2016, 2, 29, 12, 30).timestamp()) * 10**9,
    missing=False,
    content_id=1,
    digest="0" * 64,
    metadata=PhotoMetadata(40, 30, "JPEG"),
)
MORNING = datetime(2015, 6, 7, 8, 9)


def facts(photo: Photo) -> dict[str, str]:
    return dict(photo_facts(photo))


def test_the_date_is_shown_with_what_says_so() -> None:
    for source, shown in (("EXIF", "EXIF"), ("XMP", "XMP"), ("IPTC", "IPTC"), ("GPS", "from GPS, in UTC")):
        metadata = replace(PHOTO.metadata, taken_at=MORNING, taken_from=source)
        photo = replace(PHOTO, metadata=metadata, named_at=datetime(2001, 1, 1))
        assert facts(photo)["Taken"] == f"07 June 2015, 08:09 ({shown})"
    assert facts(replace(PHOTO, named_at=MORNING))["Taken"] == "07 June 2015, 08:09 (from the file's name)"
    assert facts(PHOTO)["Taken"] == "29 February 2016, 12:30 (the file's time)"


def test_a_time_that_no_calendar_has_is_not_shown() -> None:
    assert "Taken" not in facts(replace(PHOTO, mtime_ns=10**23))
    assert "Changed" not in facts(replace(PHOTO, mtime_ns=10**23))


def test_what_could_not_be_read_is_noted() -> None:
    note = "its place does not say north or south, east or west, so it is not used"
    assert facts(replace(PHOTO, metadata=replace(PHOTO.metadata, notes=(note,))))["Note"] == note
