from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from vitmae_search.photos import decode, to_rgb
from vitmae_search.photos.color import is_wide_rgb

Encode = Callable[..., bytes]


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    assert image.mode == "RGB"
    return [tuple(int(v) for v in pixel) for pixel in np.asarray(image).reshape(-1, 3)]


def greys(values: object, dtype: str, image_format: str, encoded: Encode) -> list[int]:
    """What a file with one row of these values is decoded to."""
    data = encoded(Image.fromarray(np.array([values], dtype)), image_format)
    decoded = pixels(decode(data).image)
    assert all(len(set(pixel)) == 1 for pixel in decoded)
    return [pixel[0] for pixel in decoded]


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb_and_keeps_its_size(cat: Image.Image, mode: str) -> None:
    small = cat.resize((40, 30))
    source = small.convert("P").convert(mode) if mode == "PA" else small.convert(mode)
    rgb = to_rgb(source)
    assert (rgb.mode, rgb.size) == ("RGB", (40, 30))
    assert rgb is not source
    tolerance = 120 if mode in ("1", "L", "LA", "P", "PA") else 6
    assert np.abs(np.asarray(rgb, float) - np.asarray(small, float)).mean() < tolerance


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I", "F"])
def test_every_mode_of_one_large_channel_becomes_rgb(mode: str) -> None:
    rgb = to_rgb(Image.new(mode, (5, 3)))
    assert (rgb.mode, rgb.size, set(pixels(rgb))) == ("RGB", (5, 3), {(0, 0, 0)})


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(encoded: Encode, image_format: str) -> None:
    values = [0, 128, 129, 257, 25_700, 32_768, 65_535]
    assert greys(values, "uint16", image_format, encoded) == [0, 0, 1, 1, 100, 128, 255]


def test_32_bit_integers_take_the_range_that_holds_them(encoded: Encode) -> None:
    assert greys([0, 7, 255], "int32", "TIFF", encoded) == [0, 7, 255]
    assert greys([0, 256, 65_535], "int32", "TIFF", encoded) == [0, 1, 255]
    assert greys([-102, 0, 153], "int32", "TIFF", encoded) == [0, 102, 255]
    assert greys([0, 2**30], "int32", "TIFF", encoded) == [0, 255]
    assert greys([-5, -5], "int32", "TIFF", encoded) == [0, 0]


def test_floats_take_the_range_that_holds_them(encoded: Encode) -> None:
    assert greys([0, 0.2, 1], "float32", "TIFF", encoded) == [0, 51, 255]
    assert greys([0, 2, 200], "float32", "TIFF", encoded) == [0, 2, 200]
    assert greys([-1, 0, 4], "float32", "TIFF", encoded) == [0, 51, 255]
    assert greys([np.nan, np.inf, -np.inf, 1], "float32", "TIFF", encoded) == [0, 0, 0, 255]
    assert greys([np.nan, np.nan], "float32", "TIFF", encoded) == [0, 0]
    assert greys([-3e38, 3e38], "float32", "TIFF", encoded) == [0, 255]


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_flattened_onto_white(encoded: Encode, image_format: str) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((255, 128, 0)):
        image.putpixel((x, 0), (200, 0, 0, alpha))
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    first, half, clear = pixels(decode(encoded(image, image_format, **options)).image)
    assert first == (200, 0, 0)
    assert half == pytest.approx((227, 127, 127), abs=1)
    assert clear == (255, 255, 255)


def test_grey_with_alpha(encoded: Encode) -> None:
    image = Image.new("LA", (2, 1), (0, 255))
    image.putpixel((1, 0), (0, 0))
    assert pixels(decode(encoded(image, "PNG")).image) == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(("mode", "key"), [("L", 10), ("RGB", (10, 10, 10)), ("1", 0), ("I;16", 10)])
def test_a_transparent_colour_becomes_white(encoded: Encode, mode: str, key: object) -> None:
    image = Image.new(mode, (2, 1), key)  # type: ignore[arg-type]
    other = {"L": 70, "RGB": (70, 70, 70), "1": 255, "I;16": 70 * 257}[mode]
    image.putpixel((1, 0), other)  # type: ignore[arg-type]
    shown = pixels(decode(encoded(image, "PNG", transparency=key)).image)
    assert shown[0] == (255, 255, 255)
    assert shown[1] == ((255,) * 3 if mode == "1" else (70,) * 3)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_a_transparent_palette_entry_becomes_white(encoded: Encode, transparency: object) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for x in range(3):
        image.putpixel((x, 0), x)
    data = encoded(image, "PNG", transparency=transparency)
    assert pixels(decode(data).image) == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]


def test_a_cmyk_jpeg(encoded: Encode) -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert pixels(decode(data).image)[0] == pytest.approx((255, 0, 0), abs=4)


def swapped_profile() -> bytes:
    """An RGB profile that calls red what sRGB calls green, and green red: no eye could miss it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(profile[131])}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    for text in (b"sRGB", "sRGB".encode("utf-16-be")):
        profile = profile.replace(text, text.replace(b"s", b"t"))
    return bytes(profile)


@pytest.mark.parametrize("shrink_to", [None, 16])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_values_stay_as_they_are_stored_and_their_profile_goes_with_them(
    encoded: Encode, image_format: str, shrink_to: int | None
) -> None:
    profile = swapped_profile()
    data = encoded(Image.new("RGB", (32, 32), (250, 20, 10)), image_format, icc_profile=profile)
    image = decode(data, shrink_to=shrink_to).image
    assert pixels(image)[0] == pytest.approx((250, 20, 10), abs=12)
    assert image.info == {"icc_profile": profile}


def test_an_srgb_profile_changes_nothing(cat: Image.Image, encoded: Encode) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(cat, "PNG", icc_profile=profile)
    assert decode(data, shrink_to=10).image.tobytes() == cat.tobytes()
    assert decode(data).image.info == {}


def test_a_profile_that_says_nothing_of_rgb_values_is_dropped(encoded: Encode, cat: Image.Image) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"garbage", swapped_profile()[:200], lab, bytes(5000)):
        assert not is_wide_rgb(profile)
        assert decode(encoded(cat, "JPEG", icc_profile=profile), shrink_to=99).image.info == {}
    grey = decode(encoded(cat.convert("L"), "JPEG", icc_profile=swapped_profile()))
    assert grey.image.info == {}


def test_the_input_is_left_alone(cat: Image.Image) -> None:
    before = cat.tobytes()
    to_rgb(cat).paste("red", (0, 0, 10, 10))
    assert cat.tobytes() == before


def renamed(profile: bytes, name: str) -> bytes:
    """The profile with its description, where it is "sRGB built-in", replaced by as long a name."""
    old = "sRGB built-in"
    return profile.replace(old.encode("utf-16-be"), name.ljust(len(old))[: len(old)].encode("utf-16-be"))


def with_curve(profile: bytes, gamma: float) -> bytes:
    """An RGB profile whose tone curves are a plain power."""
    tags = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(profile[131])}
    start = int.from_bytes(profile[tags[b"rTRC"] + 4 : tags[b"rTRC"] + 8], "big")
    curve = b"para" + bytes(4) + b"\0\0\0\0" + round(gamma * 65536).to_bytes(4, "big")
    return profile[:start] + curve + profile[start + len(curve) :]


def test_a_profile_is_judged_by_its_colors_and_not_by_its_name() -> None:
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert b"s\0R\0G\0B\0 \0b\0u\0i\0l\0t" in plain
    wide = swapped_profile()
    for name in ("sRGB", "x sRGB Transf", "AdobeRGB-srgb", "Adobe RGB"):
        assert not is_wide_rgb(renamed(plain, name))
        assert is_wide_rgb(renamed(wide.replace(b"t\0R\0G\0B", b"s\0R\0G\0B"), name))
    assert is_wide_rgb(with_curve(plain, 1.0))
    assert is_wide_rgb(with_curve(plain, 1.8))


@pytest.mark.parametrize(("alpha", "shown"), [(0, (200, 30, 30)), (255, (200, 30, 30))])
def test_a_bmp_whose_fourth_byte_is_empty_is_not_transparent(alpha: int, shown: tuple[int, ...]) -> None:
    """32 bits with masks for red, green, blue and alpha, as programs write that do not fill alpha."""
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 4, 4, 1, 32, 3, 64, 0, 0, 0, 0) + masks
    header = header.ljust(108, b"\0")
    body = bytes([30, 30, 200, alpha]) * 16
    start = 14 + len(header)
    data = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + body
    assert set(pixels(decode(data).image)) == {shown}
