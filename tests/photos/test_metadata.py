from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational
from pillow_heif import from_pillow

from vitmae_search.photos import decode
from vitmae_search.photos.metadata import ExifData, orientation, photo_metadata
from vitmae_search.records import PhotoMetadata

Encode = Callable[..., bytes]
PLACE = {
    GPS.GPSLatitudeRef: "S",
    GPS.GPSLatitude: (33.0, 51.0, 24.84),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (151.0, 12.0, 55.0),
}


def exif_bytes(main: Mapping[int, Any], exif: Mapping[int, Any], gps: Mapping[int, Any]) -> bytes:
    tags = Image.Exif()
    tags.update(main)
    tags.get_ifd(IFD.Exif).update(exif)
    tags.get_ifd(IFD.GPSInfo).update(gps)
    return tags.tobytes()


def metadata(
    main: Mapping[int, Any] | None = None,
    exif: Mapping[int, Any] | None = None,
    gps: Mapping[int, Any] | None = None,
) -> PhotoMetadata:
    return photo_metadata(ExifData(main or {}, exif or {}, gps or {}), (4, 3), "JPEG")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_date_camera_and_place_come_from_every_format(cat: Image.Image, encoded: Encode, name: str) -> None:
    raw = exif_bytes(
        {Base.Make: "Canon", Base.Model: "Canon EOS 5D", Base.DateTime: "2021:05:06 07:08:09"},
        {Base.DateTimeOriginal: "2019:12:31 23:59:58"},
        PLACE,
    )
    if name == "HEIF":
        buffer = BytesIO()
        from_pillow(cat).save(buffer, exif=raw)
        found = decode(buffer.getvalue()).metadata
    else:
        found = decode(encoded(cat, name, exif=raw)).metadata
    assert (found.width, found.height, found.format) == (*cat.size, name)
    assert found.taken_at == datetime(2019, 12, 31, 23, 59, 58)
    assert found.camera == "Canon EOS 5D"
    assert found.latitude == pytest.approx(-33.8569, abs=1e-4)
    assert found.longitude == pytest.approx(151.21528, abs=1e-4)


def test_a_photo_without_exif_has_its_size_alone(cat: Image.Image, encoded: Encode) -> None:
    assert decode(encoded(cat, "BMP")).metadata == PhotoMetadata(*cat.size, "BMP")


def test_the_shutter_comes_before_the_scanner_and_the_file() -> None:
    file, scan, shutter = "2001:01:01 01:01:01", "2002:02:02 02:02:02", "2003:03:03 03:03:03"
    exif = {Base.DateTimeDigitized: scan, Base.DateTimeOriginal: shutter}
    assert metadata({Base.DateTime: file}, exif).taken_at == datetime(2003, 3, 3, 3, 3, 3)
    exif[Base.DateTimeOriginal] = "0000:00:00 00:00:00"
    assert metadata({Base.DateTime: file}, exif).taken_at == datetime(2002, 2, 2, 2, 2, 2)
    assert metadata({Base.DateTime: file}).taken_at == datetime(2001, 1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2020:02:29 10:11:12", datetime(2020, 2, 29, 10, 11, 12)),
        ("2020:02:29 10:11:12\0garbage", datetime(2020, 2, 29, 10, 11, 12)),
        (b"2020:02:29 10:11:12", datetime(2020, 2, 29, 10, 11, 12)),
        ("2020-02-29T10:11:12.345+02:00", datetime(2020, 2, 29, 10, 11, 12)),
        ("2020:02:29 10:11", datetime(2020, 2, 29, 10, 11)),
        ("2021:02:29 10:11:12", None),
        ("0000:00:00 00:00:00", None),
        ("2020:13:01 00:00:00", None),
        ("2020:01:01 24:00:00", None),
        ("    :  :     :  :  ", None),
        ("", None),
        (20200229, None),
        (None, None),
    ],
)
def test_dates(written: object, expected: datetime | None) -> None:
    assert metadata(exif={Base.DateTimeOriginal: written}).taken_at == expected


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D800", "NIKON D800"),
        ("Apple", "iPhone 14 Pro", "Apple iPhone 14 Pro"),
        ("SONY  \0\0", " ILCE-7M3 ", "SONY ILCE-7M3"),
        ("Apple", None, "Apple"),
        (None, "X100", "X100"),
        ("", "", None),
        (" \0", 7, None),
        ("Two\nlines\t", "x", "Two lines x"),
        ("M" * 500, None, "M" * 120),
    ],
)
def test_cameras(make: object, model: object, camera: str | None) -> None:
    assert metadata({Base.Make: make, Base.Model: model}).camera == camera


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, (-33.8569, 151.21528)),
        ({GPS.GPSLatitudeRef: "N", GPS.GPSLongitudeRef: "W"}, (33.8569, -151.21528)),
        ({GPS.GPSLatitudeRef: b"n\0"}, (33.8569, 151.21528)),
        ({GPS.GPSLatitude: (IFDRational(90), IFDRational(0), IFDRational(0))}, (-90.0, 151.21528)),
        ({GPS.GPSLatitude: (33.8569,)}, (-33.8569, 151.21528)),
        ({GPS.GPSLatitude: (90.0, 0.0, 1.0)}, None),
        ({GPS.GPSLongitude: (180.0, 1.0, 0.0)}, None),
        ({GPS.GPSLatitude: (-33.0, 51.0, 0.0)}, None),
        ({GPS.GPSLatitude: (IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))}, None),
        ({GPS.GPSLatitude: (float("inf"), 0.0, 0.0)}, None),
        ({GPS.GPSLatitude: ("a", "b", "c")}, None),
        ({GPS.GPSLatitude: ()}, None),
        ({GPS.GPSLatitude: 33.0}, None),
        ({GPS.GPSLatitudeRef: ""}, None),
        ({GPS.GPSLongitudeRef: "S"}, None),
        ({GPS.GPSLongitudeRef: None}, None),
    ],
)
def test_places(changed: dict[int, Any], expected: tuple[float, float] | None) -> None:
    found = metadata(gps=PLACE | changed)
    if expected is None:
        assert (found.latitude, found.longitude) == (None, None)
    else:
        assert (found.latitude, found.longitude) == pytest.approx(expected, abs=1e-4)


ANYTHING = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=30),
    st.tuples(st.floats(), st.integers(), st.text(max_size=3)),
    st.lists(st.integers(), max_size=3),
    st.builds(IFDRational, st.integers(-(2**31), 2**32), st.integers(-2, 2**32)),
)
TAGS = st.dictionaries(st.sampled_from([*Base, *GPS]), ANYTHING, max_size=20)


@given(TAGS, TAGS, TAGS)
def test_no_value_is_too_odd(main: dict[int, Any], exif: dict[int, Any], gps: dict[int, Any]) -> None:
    found = metadata(main, exif, gps)
    assert orientation(ExifData(main, exif, gps)) in range(1, 9)
    assert found.camera is None or (found.camera.isprintable() and 0 < len(found.camera) <= 120)
    assert (found.latitude is None) == (found.longitude is None)
    if found.latitude is not None and found.longitude is not None:
        assert abs(found.latitude) <= 90
        assert abs(found.longitude) <= 180


@given(st.dates(), st.times())
def test_every_date_comes_back(date: Any, time: Any) -> None:
    moment = datetime.combine(date, time).replace(microsecond=0)
    written = f"{moment:%m:%d %H:%M:%S}"
    assert metadata(exif={Base.DateTimeOriginal: f"{moment.year:04}:{written}"}).taken_at == moment
