from __future__ import annotations

import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile
from pillow_heif import from_pillow

from vitmae_search.errors import DamagedPhoto, PhotoError, PhotoTooLarge, UnsupportedPhoto
from vitmae_search.photos import MEDIA_TYPES, decode, decode_target, upright_rgb

Encode = Callable[..., bytes]

# How to turn the upright picture so that a viewer which honours the value shows it upright again.
UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def exif_with(orientation: object) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def difference(left: Image.Image, right: Image.Image) -> float:
    """Mean absolute difference, 0 to 255; the sizes must be equal."""
    assert left.size == right.size
    return float(np.abs(np.asarray(left, np.int16) - np.asarray(right, np.int16)).mean())


def heif(image: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", [name for name in MEDIA_TYPES if name not in ("HEIF", "JXL", "RAW")])
def test_every_format_is_decoded_whatever_its_name_says(cat: Image.Image, encoded: Encode, name: str) -> None:
    photo = decode(encoded(cat, name), path="lies.jpg")
    assert (photo.metadata.format, photo.metadata.width, photo.metadata.height) == (name, *cat.size)
    assert photo.image.mode == "RGB"
    assert difference(photo.image, cat) < (30 if name == "GIF" else 6)


def test_heif_is_decoded_and_not_registered_for_the_process(cat: Image.Image) -> None:
    photo = decode(heif(cat, quality=90))
    assert photo.metadata.format == "HEIF"
    assert difference(photo.image, cat) < 6
    # In a process of its own: pytest's may hold plug-ins that another package registered.
    code = """if True:
        import sys
        from PIL import Image
        from vitmae_search.photos import decode
        decode(sys.stdin.buffer.read())
        assert "HEIF" not in Image.OPEN"""
    subprocess.run([sys.executable, "-c", code], input=heif(cat, quality=90), check=True)


def test_mpo_is_a_jpeg(cat: Image.Image, encoded: Encode) -> None:
    data = encoded(cat, "MPO", save_all=True, append_images=[cat.rotate(90)])
    photo = decode(data, shrink_to=100)
    assert (photo.metadata.format, photo.metadata.width) == ("JPEG", cat.width)
    assert photo.image.size == (cat.width // 2, cat.height // 2)


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(encoded: Encode, name: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:])
    assert difference(decode(data).image, frames[0]) < 3


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_all_orientations_show_the_same_upright_picture(
    cat: Image.Image, encoded: Encode, name: str, orientation: int
) -> None:
    turn = UNDO[orientation]
    stored = cat if turn is None else cat.transpose(turn)
    exif = exif_with(orientation)
    data = heif(stored, exif=exif, quality=90) if name == "HEIF" else encoded(stored, name, exif=exif)
    photo = decode(data)
    assert (photo.metadata.width, photo.metadata.height) == cat.size
    assert difference(photo.image, cat) < 8
    if name == "JPEG":
        small = decode(data, shrink_to=100)
        assert small.metadata == photo.metadata
        assert difference(small.image, cat.resize(small.image.size, Image.Resampling.BOX)) < 8


def test_an_open_picture_is_shown_as_decode_shows_it(cat: Image.Image, encoded: Encode) -> None:
    data = encoded(cat, "JPEG", exif=exif_with(6))
    with Image.open(BytesIO(data)) as image:
        shown = upright_rgb(image)
    assert shown.tobytes() == decode(data).image.tobytes()
    assert shown.size == cat.size[::-1]
    assert upright_rgb(shown).tobytes() == shown.tobytes()


BROKEN_EXIF = [b"x", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"M" * 99]


@pytest.mark.parametrize("broken", BROKEN_EXIF)
def test_broken_exif_is_survived(cat: Image.Image, encoded: Encode, broken: bytes) -> None:
    photo = decode(encoded(cat, "JPEG", exif=broken))
    assert photo.image.size == cat.size
    assert (photo.metadata.taken_at, photo.metadata.camera, photo.metadata.latitude) == (None, None, None)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(cat: Image.Image, encoded: Encode, value: int) -> None:
    assert decode(encoded(cat, "JPEG", exif=exif_with(value))).image.size == cat.size


def test_exact_is_what_pil_decodes(china_bytes: bytes) -> None:
    with Image.open(BytesIO(china_bytes)) as image:
        assert decode(china_bytes).image.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("shrink_to", [1, 50, 53, 54, 106, 107, 213, 214, 427, 428, 10_000])
def test_scaled_keeps_the_shorter_side(china_bytes: bytes, shrink_to: int) -> None:
    exact, scaled = decode(china_bytes), decode(china_bytes, shrink_to=shrink_to)
    assert scaled.metadata == exact.metadata
    assert (scaled.metadata.width, scaled.metadata.height) == exact.image.size == (640, 427)
    assert min(scaled.image.size) >= min(shrink_to, 427)
    if shrink_to <= 427 / 2:
        assert min(scaled.image.size) < 427
    small = exact.image.resize(scaled.image.size, Image.Resampling.BOX)
    assert difference(scaled.image, small) < 8


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(642, 427), (648, 422), (641, 426), (640, 424)])
def test_scaled_shows_nothing_of_what_a_camera_pads_with(
    cat: Image.Image, encoded: Encode, size: tuple[int, int], orientation: int
) -> None:
    """A JPEG is whole blocks. This one has black beyond its edges, as some cameras write it."""
    width, height = size
    padded = Image.new("RGB", (656, 432))
    padded.paste(cat.resize(size))
    data = encoded(padded, "JPEG", quality=95, exif=exif_with(orientation), subsampling=0)
    frame = data.index(b"\xff\xc0")
    data = data[: frame + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[frame + 9 :]
    exact, scaled = decode(data), decode(data, shrink_to=100)
    assert exact.metadata == scaled.metadata
    assert max(exact.image.size) > 3 * max(scaled.image.size)
    expected = np.asarray(exact.image.resize(scaled.image.size), np.int16)
    off = np.abs(np.asarray(scaled.image, np.int16) - expected).mean(axis=2)
    assert off.mean() < 2.8, "stretched"
    assert off[-1].mean() < 8, "dark below"
    assert off[:, -1].mean() < 8, "dark at the right"


def test_formats_without_a_scaled_decoder_stay_whole(cat: Image.Image, cat_bytes: bytes) -> None:
    assert decode(cat_bytes, shrink_to=10).image.tobytes() == cat.tobytes()


def test_decode_target() -> None:
    assert decode_target("exact", 224) is None
    assert decode_target("scaled", None) is None
    assert decode_target("scaled", 64) == 320
    assert decode_target("scaled", 224) == 448
    with pytest.raises(ValueError, match="scaled, exact"):
        decode_target("fast", 224)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_the_pixel_limit_comes_before_decoding(encoded: Encode, name: str) -> None:
    data = encoded(Image.new("RGB", (300, 200)), name)
    assert decode(data, max_pixels=60_000).image.size == (300, 200)
    with pytest.raises(PhotoTooLarge, match=r"big\.img: 300 × 200 pixels") as caught:
        decode(data, path="big.img", max_pixels=59_999)
    assert caught.value.path == "big.img"


def test_a_bomb_is_refused_without_its_memory(encoded: Encode) -> None:
    """A PNG header that claims 60,000 × 60,000 pixels over a small file."""
    data = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(PhotoTooLarge, match=r"3,600\.0 megapixels, more than the limit of 250\.0"):
        decode(bytes(data))


def test_pils_own_limit_neither_refuses_nor_warns(encoded: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phones shoot more than PIL's default; a small limit here stands for the large picture."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encoded(Image.new("RGB", (300, 200)), "JPEG")
    assert decode(data).image.size == (300, 200)
    with pytest.raises(PhotoTooLarge, match="more pixels than the decoder's limit"):
        decode(encoded(Image.new("RGB", (300, 200)), "TIFF"))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.85, 0.98])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIF"])
def test_truncated_files_are_refused(cat: Image.Image, encoded: Encode, name: str, share: float) -> None:
    if name == "JPEG" and share == 0.98:
        pytest.skip("enough of it is there: tests/photos/test_jpeg.py")
    data = heif(cat, quality=80) if name == "HEIF" else encoded(cat, name)
    with pytest.raises(DamagedPhoto, match=r"cut\.img: (truncated|damaged) ") as caught:
        decode(data[: int(len(data) * share)], path="cut.img")
    assert len(caught.value.reason) < 180
    assert "\n" not in caught.value.reason
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("data", [b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_a_bare_signature_is_truncated(data: bytes) -> None:
    with pytest.raises(DamagedPhoto) as caught:
        decode(data, path="cut.img")
    assert caught.value.reason == f"truncated {'GIF' if data[:3] == b'GIF' else 'PNG'} file"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"\0" * 5000, "not one of JPEG, PNG"),
        (b"%PDF-1.7\n", "not one of JPEG, PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not one of JPEG, PNG"),
        (b"8BPS\0\1" + b"\0" * 100, "not one of JPEG, PNG"),
    ],
)
def test_other_content_is_unsupported(data: bytes, reason: str) -> None:
    with pytest.raises(UnsupportedPhoto, match=f"x.jpg: {reason}"):
        decode(data, path="x.jpg")


def test_formats_outside_the_allow_list_are_not_decoded(encoded: Encode) -> None:
    for name in ("PPM", "TGA", "ICO", "PCX", "JPEG2000", "DDS", "SGI"):
        with pytest.raises(UnsupportedPhoto):
            decode(encoded(Image.new("RGB", (32, 32)), name))


def test_the_image_is_free_of_the_file(cat: Image.Image, encoded: Encode) -> None:
    data = encoded(cat, "JPEG", exif=exif_with(6), comment=b"hello")
    image = decode(data).image
    assert type(image) is Image.Image
    assert image.info == {}
    assert dict(image.getexif()) == {}


def warning_tiff(encoded: Encode) -> bytes:
    """A TIFF with a tag whose data lies outside the file: PIL warns of it."""
    data = bytearray(encoded(Image.new("L", (4, 4), 9), "TIFF", software="x" * 40))
    at = data.index((305).to_bytes(2, "little") + b"\2\0")
    data[at + 8 : at + 12] = (len(data) + 999).to_bytes(4, "little")
    return bytes(data)


def test_pils_warnings_neither_print_nor_raise(encoded: Encode) -> None:
    data = warning_tiff(encoded)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(BytesIO(data)).load()
    assert caught, "the file no longer makes PIL warn: find another"
    for action in ("error", "always"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)  # type: ignore[arg-type]
            assert decode(data).image.getpixel((0, 0)) == (9, 9, 9)
        assert caught == []


def test_nothing_is_printed_by_a_program_of_its_own(tmp_path: Path, encoded: Encode) -> None:
    (tmp_path / "a.tif").write_bytes(warning_tiff(encoded))
    program = (
        "import sys, vitmae_search.photos as photos;"
        "photos.decode(photos.read_photo(sys.argv[1]));"
        "print('torch' in sys.modules)"
    )
    for flags in ([], ["-W", "error"]):
        done = subprocess.run(
            [sys.executable, *flags, "-c", program, str(tmp_path / "a.tif")],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        assert (done.stdout, done.stderr) == ("False\n", "")


def test_many_threads_decode_alike(cat: Image.Image, china_bytes: bytes, encoded: Encode) -> None:
    files = [
        china_bytes,
        warning_tiff(encoded),
        encoded(cat, "WEBP"),
        heif(cat, quality=50),
        encoded(cat, "AVIF"),
        china_bytes[:9000],
    ]

    def outcome(data: bytes) -> object:
        try:
            photo = decode(data, shrink_to=64)
        except PhotoError as error:
            return error.reason
        return photo.image.tobytes(), photo.metadata

    expected = [outcome(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for repeat in range(6):
            turned = files[repeat:] + files[:repeat]
            assert list(pool.map(outcome, turned)) == expected[repeat:] + expected[:repeat]


@pytest.mark.parametrize("major", ["MiHB", "mif2", "MiHE", "miaf", "1pic", "heic"])
def test_a_heif_is_known_by_any_of_its_brands(cat: Image.Image, major: str) -> None:
    data = heif(cat)
    assert data[4:8] == b"ftyp"
    whole = decode(data)
    found = decode(data[:8] + major.encode() + data[12:])
    assert found.metadata == whole.metadata
    assert found.metadata.format == "HEIF"
    assert found.image.tobytes() == whole.image.tobytes()


@pytest.mark.parametrize("major", ["MA1B", "MA1A", "mif1", "mif2", "miaf", "none"])
def test_an_avif_is_known_by_any_of_its_brands(cat: Image.Image, encoded: Encode, major: str) -> None:
    data = encoded(cat, "AVIF")
    found = decode(data[:8] + major.encode() + data[12:])
    assert found.metadata.format == "AVIF"
    assert found.image.tobytes() == decode(data).image.tobytes()


def test_films_in_the_same_container_are_not_photos() -> None:
    for brands in (b"isom\0\0\2\0isomiso2avc1mp41", b"qt  \0\0\0\0qt  ", b"M4A \0\0\0\0"):
        head = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands
        with pytest.raises(UnsupportedPhoto, match="not one of"):
            decode(head + bytes(200))
