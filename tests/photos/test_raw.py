"""Sensor data of cameras: what is shown of it, which way is up, and what is no photo."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import DamagedPhoto, PhotoError, PhotoTooLarge, UnsupportedPhoto
from vitmae_search.library import Library
from vitmae_search.photos import decode, readable_suffixes, scan

pytest.importorskip("rawpy")
Encode = Callable[..., bytes]
SIZE = (160, 96)
"""Width and height of the photos."""
QUARTERS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30))
Tag = tuple[int, int, Sequence[int] | bytes]
"""Number, type (1 bytes, 2 text, 3 short, 4 long) and values."""


def picture() -> Image.Image:
    """Quarters: red and green above blue and yellow."""
    width, height = SIZE
    image = Image.new("RGB", SIZE)
    for number, color in enumerate(QUARTERS):
        x, y = number % 2 * width // 2, number // 2 * height // 2
        image.paste(color, (x, y, x + width // 2, y + height // 2))
    return image


def sensor_values() -> bytes:
    """The picture through a filter of red, green / green, blue, 16 bits a value."""
    rgb = np.asarray(picture()).astype(np.uint16) * 250
    values = rgb[..., 1].copy()
    values[::2, ::2], values[1::2, 1::2] = rgb[::2, ::2, 0], rgb[1::2, 1::2, 2]
    return values.astype("<u2").tobytes()


def tiff(images: Sequence[tuple[list[Tag], bytes]]) -> bytes:
    """A TIFF file whose first image lists the others in its tag SubIFDs."""
    starts, at = [], 8
    for _, pixels in images:
        starts.append(at)
        at += len(pixels)
    body = b"".join(pixels for _, pixels in images)
    tables: list[bytes] = []
    for number in reversed(range(len(images))):
        tags, pixels = images[number]
        all_tags = [*tags, (273, 4, [starts[number]]), (279, 4, [len(pixels)])]
        if number == 0 and len(images) > 1:
            sub, ends = [], 8 + len(body)
            for table in tables:
                sub.append(ends)
                ends += len(table)
            all_tags.append((330, 4, list(reversed(sub))))
        tables.append(table_of(sorted(all_tags), 8 + len(body) + sum(map(len, tables))))
    first = 8 + len(body) + sum(map(len, tables[:-1]))
    return b"II*\0" + struct.pack("<I", first) + body + b"".join(tables)


def table_of(tags: Sequence[Tag], start: int) -> bytes:
    entries, more, after = b"", b"", start + 2 + 12 * len(tags) + 4
    for number, kind, values in tags:
        data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{' BBHI'[kind]}", *values)
        count = len(values)
        if len(data) > 4:
            entries += struct.pack("<HHII", number, kind, count, after + len(more))
            more += data + b"\0" * (len(data) % 2)
        else:
            entries += struct.pack("<HHI", number, kind, count) + data.ljust(4, b"\0")
    return struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + more


def dng(preview: bytes | None = None, *, orientation: int = 1, version: bool = True) -> bytes:
    """A DNG file, with the camera's JPEG where there is one."""
    width, height = SIZE
    sensor: list[Tag] = [
        *((254, 4, [0]), (256, 4, [width]), (257, 4, [height]), (258, 3, [16]), (259, 3, [1])),
        *((262, 3, [32803]), (277, 3, [1]), (278, 4, [height])),
        *((33421, 3, [2, 2]), (33422, 1, bytes([0, 1, 1, 2]))),
    ]
    about: list[Tag] = [
        *((271, 2, b"Camera\0"), (272, 2, b"One\0"), (274, 3, [orientation])),
        (306, 2, b"2015:06:07 08:09:10\0"),
    ]
    if version:
        about += [(50706, 1, bytes([1, 4, 0, 0])), (50708, 2, b"Camera One\0")]
    if preview is None:
        return tiff([([*sensor, *about], sensor_values())])
    with Image.open(BytesIO(preview)) as image:
        small = image.size
    shown: list[Tag] = [
        *((254, 4, [1]), (256, 4, [small[0]]), (257, 4, [small[1]]), (258, 3, [8, 8, 8]), (259, 3, [7])),
        *((262, 3, [6]), (277, 3, [3]), (278, 4, [small[1]])),
    ]
    return tiff([([*shown, *about], preview), (sensor, sensor_values())])


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """The largest channels of the middles of the quarters: of red (0,), and of yellow (0, 1)."""
    width, height = image.size
    found = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            pixel = np.array(image.getpixel((x, y)))
            found.append(tuple(np.flatnonzero(pixel > 0.6 * pixel.max()).tolist()))
    return found


UPRIGHT = [(0,), (1,), (2,), (0, 1)]


def test_the_data_is_developed_at_half_size() -> None:
    photo = decode(dng())
    assert photo.metadata.format == "RAW"
    assert (photo.metadata.width, photo.metadata.height) == SIZE
    assert photo.image.size == (SIZE[0] // 2, SIZE[1] // 2)
    assert corners(photo.image) == UPRIGHT
    assert photo.metadata.taken_at == datetime(2015, 6, 7, 8, 9, 10)
    assert photo.metadata.camera == "Camera One"


@pytest.mark.parametrize("with_preview", [False, True])
def test_a_turned_photo_is_upright(encoded: Encode, with_preview: bool) -> None:
    preview = encoded(picture(), "JPEG", quality=95) if with_preview else None
    photo = decode(dng(preview, orientation=6))
    assert (photo.metadata.width, photo.metadata.height) == SIZE[::-1]
    assert photo.image.height > photo.image.width
    assert corners(photo.image) == [(2,), (0,), (0, 1), (1,)]


def test_the_camera_s_own_picture_is_taken_where_it_is_large_enough(encoded: Encode) -> None:
    grey = Image.new("RGB", SIZE, (90, 90, 90))
    photo = decode(dng(encoded(grey, "JPEG")))
    assert photo.image.size == SIZE
    assert corners(photo.image) == [(0, 1, 2)] * 4
    small = encoded(grey.resize((40, 24)), "JPEG")
    assert corners(decode(dng(small)).image) == UPRIGHT


def test_the_camera_s_own_picture_is_scaled_down_by_its_decoder(encoded: Encode) -> None:
    photo = decode(dng(encoded(picture(), "JPEG", quality=95)), shrink_to=40)
    assert photo.image.size == (SIZE[0] // 2, SIZE[1] // 2)
    assert (photo.metadata.width, photo.metadata.height) == SIZE
    assert corners(photo.image) == UPRIGHT


def test_the_content_decides(encoded: Encode) -> None:
    assert decode(dng(version=True), path="a.jpg").metadata.format == "RAW"
    assert decode(encoded(picture(), "TIFF"), path="a.dng").metadata.format == "TIFF"


def test_too_many_pixels() -> None:
    with pytest.raises(PhotoTooLarge, match="160 × 96 pixels"):
        decode(dng(), max_pixels=SIZE[0] * SIZE[1] - 1)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_damaged_one_is_refused_or_decoded(share: float) -> None:
    data = dng()
    with pytest.raises((DamagedPhoto, UnsupportedPhoto)):
        decode(data[: int(len(data) * share)])


def test_flipped_bytes_raise_nothing_else() -> None:
    data, random = dng(), np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(data)
        for at in random.integers(len(data) - 700, len(data), 3):
            changed[at] ^= int(random.integers(1, 256))
        with suppress(PhotoError):
            decode(bytes(changed))


def test_a_folder_with_them_is_indexed(tmp_path: Path, encoded: Encode) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.DNG").write_bytes(dng())
    with Library.open(tmp_path / "library", embedder="color_layout") as library:
        assert library.index(photos).added == 1
        (hit,) = library.search(picture(), k=1).hits
        assert hit.photo.path == str(photos / "a.DNG")


def test_their_suffixes_are_named_last() -> None:
    suffixes = readable_suffixes()
    assert suffixes.index(".webp") < suffixes.index(".arw")


def test_without_the_package_they_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "rawpy" else find(name, *rest)
    )
    (tmp_path / "a.dng").write_bytes(dng())
    assert list(scan(tmp_path, on_problem=print)) == []
    with pytest.raises(UnsupportedPhoto, match=r"RAW needs the package rawpy.*vitmae-search\[raw\]"):
        decode(dng())
