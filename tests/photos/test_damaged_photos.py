"""Whatever a file holds, `decode` gives an RGB picture or a `PhotoError`, and prints nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pillow_heif import from_pillow

from vitmae_search.errors import PhotoError
from vitmae_search.photos import MEDIA_TYPES, DecodedPhoto, decode

SIGNATURES = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xe1\x00\x40Exif\0\0II*\0\x08\0\0\0",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x20\0\0\0\x20\x08\x02\0\0\0",
    b"GIF89a\x20\0\x20\0\x80\0\0",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"RIFF\x40\0\0\0WEBPVP8X",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    b"BM\x40\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    b"\0\0\0\x1cftypavif\0\0\0\0avifmif1",
    b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1",
    b"\0\0\0\x1cftypheic\0\0\0\0mif1heic",
]
FUZZED = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def attempt(data: bytes, shrink_to: int | None) -> DecodedPhoto | PhotoError:
    try:
        return decode(data, path="f.jpg", shrink_to=shrink_to, max_pixels=4_000_000)
    except PhotoError as error:
        return error


def check(data: bytes) -> str:
    """Decode both ways; what came of the exact one: "decoded" or the error's name."""
    exact, scaled = attempt(data, None), attempt(data, 16)
    for outcome in (exact, scaled):
        if isinstance(outcome, PhotoError):
            assert outcome.path == "f.jpg"
            assert 0 < len(outcome.reason) < 200
            assert outcome.reason.isprintable()
        else:
            assert outcome.image.mode == "RGB"
            assert outcome.metadata.format in MEDIA_TYPES
    if isinstance(exact, PhotoError):
        return type(exact).__name__
    assert exact.image.size == (exact.metadata.width, exact.metadata.height)
    return "decoded"


@FUZZED
@given(st.sampled_from(SIGNATURES), st.binary(max_size=300))
def test_random_bytes(signature: bytes, rest: bytes) -> None:
    check(signature + rest)


def _jxl_is_installed() -> bool:
    try:
        import pillow_jxl  # noqa: F401  it registers the format in PIL
    except ImportError:
        return False
    return True


@pytest.fixture(scope="session")
def small_files(cat: Image.Image, encoded: Callable[..., bytes]) -> dict[str, bytes]:
    """A small valid file of every format, with EXIF where the format has it."""
    small = cat.resize((48, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    raw = exif.tobytes()
    files = {}
    for name in MEDIA_TYPES:
        if name == "RAW" or (name == "JXL" and not _jxl_is_installed()):
            continue
        if name == "HEIF":
            buffer = BytesIO()
            from_pillow(small).save(buffer, exif=raw)
            files[name] = buffer.getvalue()
        elif name in ("GIF", "BMP", "JXL"):
            files[name] = encoded(small, name)
        else:
            files[name] = encoded(small, name, exif=raw)
    files["progressive"] = encoded(small, "JPEG", exif=raw, progressive=True)
    files["interlaced 16 bit"] = encoded(small.convert("I;16"), "PNG")
    files["LZW"] = encoded(small, "TIFF", compression="tiff_lzw")
    return files


@FUZZED
@given(data=st.data())
def test_truncations(small_files: dict[str, bytes], data: st.DataObject) -> None:
    whole = small_files[data.draw(st.sampled_from(sorted(small_files)))]
    check(whole[: data.draw(st.integers(0, len(whole) - 1))])


@FUZZED
@given(data=st.data())
def test_changed_bytes(small_files: dict[str, bytes], data: st.DataObject) -> None:
    changed = bytearray(small_files[data.draw(st.sampled_from(sorted(small_files)))])
    for _ in range(data.draw(st.integers(1, 6))):
        # The first bytes are headers, where a change does most.
        at = data.draw(st.integers(0, min(len(changed) - 1, data.draw(st.sampled_from([80, 400, 10_000])))))
        changed[at] = data.draw(st.integers(0, 255))
    check(bytes(changed))


def test_the_small_files_are_whole(small_files: dict[str, bytes]) -> None:
    assert {check(data) for data in small_files.values()} == {"decoded"}


def _corpus() -> Iterator[Path]:
    folder = os.environ.get("PILLOW_SOURCE_IMAGES")
    if folder:
        yield from sorted(path for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.skipif(
    not os.environ.get("PILLOW_SOURCE_IMAGES"),
    reason="PILLOW_SOURCE_IMAGES does not name the folder Tests/images of Pillow's source",
)
def test_pillows_own_corpus(capfd: pytest.CaptureFixture[str]) -> None:
    """Hundreds of good, odd and malicious files; none may hang, and most must come out.

    `pip download --no-deps --no-binary pillow pillow` brings the source.
    """
    outcomes: dict[str, list[str]] = {}
    for path in _corpus():
        started = time.monotonic()
        try:
            photo = decode(path.read_bytes(), path=path)
        except PhotoError as error:
            outcome = type(error).__name__
        else:
            assert photo.image.mode == "RGB"
            assert photo.image.size == (photo.metadata.width, photo.metadata.height), path
            outcome = "decoded"
        outcomes.setdefault(outcome, []).append(path.name)
        assert time.monotonic() - started < 30, path
    assert len(outcomes["decoded"]) > 600
    assert "reallybig.bmp" in outcomes["PhotoTooLarge"]
    assert "truncated_jpeg.jpg" in outcomes["decoded"]  # only its end marker is missing
    assert "broken_data_stream.png" in outcomes["DamagedPhoto"]
    assert "Warning" not in capfd.readouterr().err
