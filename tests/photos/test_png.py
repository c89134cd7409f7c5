"""What else a PNG file holds than its pixels cannot make it unreadable."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image, ImageCms

from vitmae_search.errors import DamagedPhoto
from vitmae_search.photos import decode
from vitmae_search.photos.png import has_own_still, needed_chunks

Encode = Callable[..., bytes]
BOMB = zlib.compress(bytes(2_000_000), 9)
EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
MOVIE_CONTROL = struct.pack(">II", 1, 0)
FRAME_CONTROL = struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 10, 0, 0)


def chunk(kind: bytes, body: bytes, wrong: int = 0) -> bytes:
    checksum = zlib.crc32(kind + body) ^ wrong
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


@pytest.fixture
def small(cat: Image.Image) -> Image.Image:
    return cat.resize((40, 30))


@pytest.fixture
def plain(small: Image.Image, encoded: Encode) -> bytes:
    return encoded(small, "PNG")


def before_pixels(data: bytes, *chunks: bytes) -> bytes:
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def after_pixels(data: bytes, *chunks: bytes) -> bytes:
    return data[:-12] + b"".join(chunks) + data[-12:]


ODD_CHUNKS = {
    "a bomb of text": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "a bomb of international text": chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
    "a bomb of XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "a bomb of raw EXIF": chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "a bomb of a profile": chunk(b"iCCP", b"profile\0\0" + BOMB),
    "long text": chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000),
    "long XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * 2_000_000),
    "a wrong checksum of text": chunk(b"tEXt", b"Comment\0hello", wrong=1),
    "a wrong checksum of the density": chunk(b"pHYs", bytes(9), wrong=1),
    "a wrong checksum of a profile": chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"x"), wrong=1),
    "a wrong checksum of EXIF": chunk(b"eXIf", EXIF, wrong=1),
    "a wrong checksum of a suggested palette": chunk(b"PLTE", bytes(30), wrong=1),
    "another compression of a profile": chunk(b"iCCP", b"profile\0\7" + zlib.compress(b"x")),
    "a profile without a name's end": chunk(b"iCCP", b"profile"),
    "a profile that breaks off": chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(9999))[:10]),
    "transparency that is too short": chunk(b"tRNS", b"\0"),
    "a gamma that is too short": chunk(b"gAMA", b"\0"),
    "colors that are too short": chunk(b"cHRM", b"\0" * 5),
    "an empty density": chunk(b"pHYs", b""),
    "frames out of order": chunk(b"acTL", MOVIE_CONTROL) + chunk(b"fdAT", b"\0\0\0\7") * 2,
    "an odd frame": chunk(b"acTL", MOVIE_CONTROL) + chunk(b"fcTL", FRAME_CONTROL[:9]),
    "an unknown chunk": chunk(b"vpAg", b"\0", wrong=1),
}


@pytest.mark.parametrize("where", [before_pixels, after_pixels])
@pytest.mark.parametrize("odd", ODD_CHUNKS.values(), ids=ODD_CHUNKS.keys())
def test_an_odd_chunk_is_left_out(
    plain: bytes, small: Image.Image, odd: bytes, where: Callable[..., bytes]
) -> None:
    photo = decode(where(plain, odd))
    assert photo.image.tobytes() == small.tobytes()
    assert photo.image.info == {}


def test_a_chunk_between_the_pixels_is_left_out(small: Image.Image, plain: bytes) -> None:
    start = plain.index(b"IDAT")
    (length,) = struct.unpack(">I", plain[start - 4 : start])
    pixels = plain[start + 4 : start + 4 + length]
    halves = chunk(b"IDAT", pixels[:99]) + chunk(b"tIME", bytes(7)) + chunk(b"IDAT", pixels[99:])
    assert decode(plain[: start - 4] + halves + plain[-12:]).image.tobytes() == small.tobytes()


def test_many_bombs_take_little_memory(plain: bytes, small: Image.Image) -> None:
    bomb = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(50_000_000), 9))
    data = before_pixels(plain, *[bomb] * 20)
    tracemalloc.start()
    photo = decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert photo.image.tobytes() == small.tobytes()
    assert peak < 10e6


def test_what_decoding_needs_is_kept(plain: bytes, small: Image.Image, encoded: Encode) -> None:
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"gXYZ", b"xXYZ")
    wide = wide.replace(b"rXYZ", b"gXYZ").replace(b"xXYZ", b"rXYZ")
    assert decode(encoded(small, "PNG", icc_profile=wide)).image.info == {"icc_profile": wide}
    for where in (before_pixels, after_pixels):
        upright = decode(where(plain, chunk(b"eXIf", EXIF))).image
        assert upright.tobytes() == small.transpose(Image.Transpose.ROTATE_270).tobytes()
    holes = Image.new("P", (2, 1))
    holes.putpalette([255, 0, 0, 0, 255, 0])
    holes.putpixel((1, 0), 1)
    assert decode(encoded(holes, "PNG", transparency=0)).image.getpixel((0, 0)) == (255, 255, 255)


def test_a_file_with_nothing_else_is_not_even_copied(plain: bytes) -> None:
    assert needed_chunks(plain) is plain


def test_the_palette_that_is_needed_must_be_whole(encoded: Encode, small: Image.Image) -> None:
    data = encoded(small.convert("P"), "PNG")
    at = data.index(b"PLTE")
    with pytest.raises(DamagedPhoto):
        decode(data[: at + 10] + b"\x77" + data[at + 11 :])


@pytest.mark.parametrize("missing", [1, 4, 11, 12, 16])
def test_a_file_without_its_end_is_whole(plain: bytes, small: Image.Image, missing: int) -> None:
    assert decode(plain[:-missing]).image.tobytes() == small.tobytes()


def test_an_animation_is_decoded_to_its_still(small: Image.Image, encoded: Encode) -> None:
    other = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for own_still in (True, False):
        data = encoded(
            small, "PNG", save_all=True, append_images=[other, small], default_image=own_still, duration=100
        )
        with Image.open(BytesIO(data)) as image:
            assert getattr(image, "n_frames", 1) > 1
        assert decode(data).image.tobytes() == small.tobytes()
        assert has_own_still(data) is own_still
    assert not has_own_still(encoded(small, "PNG"))
