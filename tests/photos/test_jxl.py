"""JPEG XL, with the package that decodes it and without."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from vitmae_search.errors import DamagedPhoto, PhotoError, PhotoTooLarge, UnsupportedPhoto
from vitmae_search.photos import decode, scan

pytest.importorskip("pillow_jxl")
Encode = Callable[..., bytes]


def exif_bytes() -> bytes:
    tags = Image.Exif()
    tags[Base.Orientation] = 6
    tags[Base.Make] = "Canon"
    tags.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = "2015:06:07 08:09:10"
    return tags.tobytes()


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_its_pixels(cat: Image.Image, encoded: Encode, mode: str, container: bool) -> None:
    image = cat.convert(mode)
    photo = decode(encoded(image, "JXL", lossless=True, use_container=container))
    assert photo.image.tobytes() == image.convert("RGB").tobytes()
    assert (photo.metadata.width, photo.metadata.height, photo.metadata.format) == (*cat.size, "JXL")
    assert photo.image.info == {}


def test_its_tags(cat: Image.Image, encoded: Encode) -> None:
    """Its decoder turns a photo by the codestream's own orientation, so that EXIF's says nothing."""
    photo = decode(encoded(cat, "JXL", use_container=True, lossless=True, exif=exif_bytes()))
    assert photo.metadata.taken_at == datetime(2015, 6, 7, 8, 9, 10)
    assert photo.metadata.camera == "Canon"
    assert photo.image.size == cat.size


def test_a_jpeg_that_was_packed_is_as_it_was(cat: Image.Image, encoded: Encode, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(cat, "JPEG", exif=exif_bytes()))
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.jxl", lossless_jpeg=True)
    photo, before = (decode((tmp_path / name).read_bytes()) for name in ("a.jxl", "a.jpg"))
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(before.image))
    assert photo.metadata.taken_at == before.metadata.taken_at


@pytest.mark.parametrize(
    "size", [(8, 8), (256, 256), (257, 100), (1, 300), (640, 480), (1000, 1200), (1920, 1080)]
)
@pytest.mark.parametrize("container", [False, True])
def test_too_many_pixels_are_refused_before_they_are_decoded(
    encoded: Encode, size: tuple[int, int], container: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pillow_jxl import JpegXLImagePlugin

    data = encoded(Image.new("RGB", size, (200, 30, 30)), "JXL", use_container=container)
    pixels = size[0] * size[1]
    assert decode(data, max_pixels=pixels).image.size == size
    monkeypatch.setattr(JpegXLImagePlugin, "JXLImageFile", pytest.fail)
    with pytest.raises(PhotoTooLarge, match=f"{size[0]} × {size[1]} pixels"):
        decode(data, max_pixels=pixels - 1)


def test_damaged_files(cat: Image.Image, encoded: Encode) -> None:
    data = encoded(cat, "JXL")
    for broken in (
        data[:2],
        data[: len(data) // 2],
        data[:40] + bytes(100) + data[140:],
        b"\xff\x0a" + bytes(99),
    ):
        with pytest.raises(PhotoError):
            decode(broken)
    with pytest.raises(DamagedPhoto):
        decode(data[: len(data) // 2])


def test_without_the_package_it_is_no_photo(
    cat: Image.Image, encoded: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(cat, "JXL")
    (tmp_path / "a.jxl").write_bytes(data)
    assert [stamp.path for stamp in scan(str(tmp_path), on_problem=pytest.fail)] == [str(tmp_path / "a.jxl")]
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    others: list[str] = []
    assert list(scan(str(tmp_path), on_problem=pytest.fail, on_other=others.append)) == []
    assert others == [str(tmp_path / "a.jxl")]
    with pytest.raises(UnsupportedPhoto, match="needs the package pillow-jxl-plugin"):
        decode(data)
