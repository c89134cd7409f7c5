from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational
from pillow_heif import from_pillow

from vitmae_search.photos import date_in_name, decode
from vitmae_search.photos.metadata import ExifData, OtherTags, orientation, photo_metadata
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
        ("2020:01:01 24:00:00", datetime(2020, 1, 1)),
        ("2020:01:01 23:60:10", datetime(2020, 1, 1, 23)),
        ("2020:01:01 23:59:60", datetime(2020, 1, 1, 23, 59)),
        ("2020:01:01 23:59:99", datetime(2020, 1, 1, 23, 59)),
        ("2020:01:01", datetime(2020, 1, 1)),
        ("2020:01:01   :  :  ", datetime(2020, 1, 1)),
        ("2020:01:011", None),
        ("0001:01:01 00:00:00", None),
        ("1799:12:31 00:00:00", None),
        ("1826:06:01 12:00:00", datetime(1826, 6, 1, 12)),
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
        ("Зенит".encode().decode("latin-1"), "E", "Зенит E"),  # as PIL reads UTF-8
        ("Зенит".encode() + b"\0\xff", None, "Зенит"),
        ("キヤノン", None, "キヤノン"),
        ("Agfa-Gevaert \xe9", None, "Agfa-Gevaert é"),  # Latin-1 indeed
        (b"caf\xe9", None, "café"),
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


def test_a_place_without_north_or_south_is_noted() -> None:
    found = metadata(gps={GPS.GPSLatitude: (48.0, 51.0, 0.0), GPS.GPSLongitude: (2.0, 21.0, 0.0)})
    assert (found.latitude, found.longitude) == (None, None)
    assert found.notes == ("its place does not say north or south, east or west, so it is not used",)
    assert metadata(gps=PLACE).notes == ()
    assert metadata(gps=PLACE | {GPS.GPSLongitudeRef: "\0"}).notes == found.notes
    assert metadata(gps={GPS.GPSLatitude: (48.0, 51.0, 0.0)}).notes == ()


# Dates of other tags ---------------------------------------------------------------------------------------

MORNING = datetime(2015, 6, 7, 8, 9, 10)
XMP = """<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description {}</rdf:RDF></x:xmpmeta>"""


def iptc_block(values: Mapping[int, bytes]) -> bytes:
    """A Photoshop segment with IPTC values of record 2."""
    block = b"".join(struct.pack(">BBBH", 0x1C, 2, key, len(value)) + value for key, value in values.items())
    return (
        b"Photoshop 3.0\0"
        + b"8BIM\x04\x04\0\0"
        + struct.pack(">I", len(block))
        + block
        + b"\0" * (len(block) % 2)
    )


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('exif:DateTimeOriginal="2015-06-07T08:09:10.5+02:00"/>', MORNING),
        ("><exif:DateTimeOriginal>2015-06-07T08:09:10</exif:DateTimeOriginal></rdf:Description>", MORNING),
        ("photoshop:DateCreated='2015-06-07'/>", datetime(2015, 6, 7)),
        ('xmp:CreateDate="2015-06-07T08:09Z"/>', MORNING.replace(second=0)),
        ('xmp:CreateDate="2020-01-01" exif:DateTimeOriginal="2015-06-07T08:09:10"/>', MORNING),
        ('exif:DateTimeOriginal="" xmp:CreateDate="2015-06-07T08:09:10"/>', MORNING),
        ('xmp:ModifyDate="2015-06-07T08:09:10"/>', None),
        ('exif:DateTimeOriginal="0000-00-00T00:00:00"/>', None),
        ('exif:DateTimeOriginal="yesterday"/>', None),
    ],
)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_dates_of_xmp(
    cat: Image.Image, encoded: Encode, name: str, written: str, expected: datetime | None
) -> None:
    small, packet = cat.resize((32, 24)), XMP.format(written).encode()
    if name == "HEIF":
        buffer = BytesIO()
        from_pillow(small).save(buffer, xmp=packet)
        data = buffer.getvalue()
    elif name == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
        data = encoded(small, name, pnginfo=text)
    elif name == "TIFF":
        data = encoded(small, name, tiffinfo={700: packet})
    else:
        data = encoded(small, name, xmp=packet)
    found = decode(data).metadata
    assert (found.taken_at, found.taken_from) == (expected, expected and "XMP")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({55: b"20150607", 60: b"080910+0200"}, MORNING),
        ({55: b"20150607"}, datetime(2015, 6, 7)),
        ({55: b"20150607", 60: b"249999"}, datetime(2015, 6, 7)),
        ({62: b"20150607", 63: b"080910"}, MORNING),
        ({55: b"00000000", 62: b"20150607", 63: b"080910"}, MORNING),
        ({55: b"2015-06-07"}, None),
        ({55: b""}, None),
        ({}, None),
    ],
)
def test_dates_of_iptc(
    cat: Image.Image, encoded: Encode, values: Mapping[int, bytes], expected: datetime | None
) -> None:
    found = decode(with_segment(encoded(cat, "JPEG"), 0xED, iptc_block(values))).metadata
    assert (found.taken_at, found.taken_from) == (expected, expected and "IPTC")


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ((8.0, 9.0, 10.9), MORNING),
        ((8.0, 9.0, 60.0), MORNING.replace(second=0)),
        ((IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0)), datetime(2015, 6, 7)),
        (None, datetime(2015, 6, 7)),
        ("08:09:10", datetime(2015, 6, 7)),
    ],
)
def test_the_date_of_gps(time: object, expected: datetime) -> None:
    found = metadata(gps={GPS.GPSDateStamp: "2015:06:07", GPS.GPSTimeStamp: time})
    assert (found.taken_at, found.taken_from) == (expected, "GPS")


def test_what_says_when_a_photo_was_taken_comes_in_an_order(cat: Image.Image, encoded: Encode) -> None:
    """EXIF, XMP, IPTC, GPS; at last EXIF's time of change, which programs write, too."""
    exif = {Base.DateTimeOriginal: "2001:01:01 00:00:00"}
    packet = XMP.format('exif:DateTimeOriginal="2002-01-01"/>').encode()
    iptc = iptc_block({55: b"20030101"})
    gps = {GPS.GPSDateStamp: "2004:01:01"}
    changed = {Base.DateTime: "2005:01:01 00:00:00"}

    def taken(exif: Mapping[int, Any], xmp: bytes, iptc: bytes, gps: Mapping[int, Any]) -> tuple[Any, Any]:
        data = encoded(cat, "JPEG", exif=exif_bytes(changed, exif, gps), xmp=xmp)
        found = decode(with_segment(data, 0xED, iptc)).metadata
        assert found.taken_at is not None
        return found.taken_at.year, found.taken_from

    no_iptc = iptc_block({})
    assert taken(exif, packet, iptc, gps) == (2001, "EXIF")
    assert taken({}, packet, iptc, gps) == (2002, "XMP")
    assert taken({}, b"", iptc, gps) == (2003, "IPTC")
    assert taken({}, b"", no_iptc, gps) == (2004, "GPS")
    assert taken({}, b"", no_iptc, {}) == (2005, "EXIF")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IMG-20150607-WA0001.jpg", datetime(2015, 6, 7)),
        ("IMG_20150607_080910.jpg", MORNING),
        ("IMG_20150607_080910(1).jpg", MORNING),
        ("PXL_20150607_080910123.MP.jpg", MORNING),
        ("20150607080910.jpg", MORNING),
        ("2015-06-07 08.09.10.jpg", MORNING),
        ("Screenshot_2015-06-07-08-09-10.png", MORNING),
        ("Screenshot 2015-06-07 at 08.09.10.png", MORNING),
        ("signal-2015-06-07-080910.jpg", MORNING),
        ("2015_06_07.tif", datetime(2015, 6, 7)),
        ("20150607_240000.jpg", datetime(2015, 6, 7)),
        ("beach 20150607", datetime(2015, 6, 7)),
        ("99999999-20150607.jpg", datetime(2015, 6, 7)),
        ("20151307.jpg", None),
        ("20150631.jpg", None),
        ("2015-0607.jpg", None),
        ("120150607.jpg", None),
        ("201506071.jpg", None),
        ("20990607.jpg", None),
        ("18150607.jpg", None),
        ("DSC_2015.jpg", None),
        ("1433664550123.jpg", None),
        ("IMG_0607.jpg", None),
    ],
)
def test_dates_in_names(name: str, expected: datetime | None) -> None:
    assert date_in_name(f"/photos/20110101/{name}") == expected


@given(st.text(alphabet="0129-_. T:ah\udcff", max_size=40))
def test_no_name_is_too_odd(name: str) -> None:
    date_in_name(name)


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


@given(st.dates(datetime(1800, 1, 1).date()), st.times())
def test_every_date_comes_back(date: Any, time: Any) -> None:
    moment = datetime.combine(date, time).replace(microsecond=0)
    written = f"{moment:%m:%d %H:%M:%S}"
    assert metadata(exif={Base.DateTimeOriginal: f"{moment.year:04}:{written}"}).taken_at == moment


@pytest.mark.parametrize(
    ("exif", "xmp", "lens"),
    [
        ({Base.LensModel: "EF24-70mm f/2.8L II USM"}, "", "EF24-70mm f/2.8L II USM"),
        ({Base.LensModel: "----"}, "", None),
        ({Base.LensModel: "----", Base.LensSpecification: (18.0, 55.0, 3.5, 5.6)}, "", "18-55mm f/3.5-5.6"),
        ({Base.LensSpecification: (50.0, 50.0, 1.8, 1.8)}, "", "50mm f/1.8"),
        ({Base.LensSpecification: (50.0, 50.0, IFDRational(0, 0), 0.0)}, "", "50mm"),
        ({Base.LensSpecification: (0.0, 0.0, 0.0, 0.0)}, "", None),
        ({Base.LensSpecification: (1.0, "x")}, "", None),
        ({Base.LensModel: 7}, '<rdf aux:Lens="35 mm">', "35 mm"),
        ({}, "<exifEX:LensModel>Zeiss &lt;</exifEX:LensModel>", "Zeiss &lt;"),
        ({}, "aux:Lens=", None),
    ],
)
def test_lenses(exif: dict[int, object], xmp: str, lens: str | None) -> None:
    found = photo_metadata(ExifData({}, exif, {}), (4, 3), "JPEG", OtherTags(xmp))
    assert found.lens == lens
