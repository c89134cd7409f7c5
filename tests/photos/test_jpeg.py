"""JPEG files that break off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import DamagedPhoto
from vitmae_search.photos import decode

Encode = Callable[..., bytes]
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "4:4:4": {"subsampling": 0},
    "restarts": {"restart_marker_rows": 2},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True, "quality": 95},
}


def end_of_data(data: bytes) -> int:
    """Where the end marker is."""
    assert data[-2:] == b"\xff\xd9"
    return len(data) - 2


@pytest.mark.parametrize("shrink_to", [None, 40])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_lacks_its_end_marker_alone_is_whole(
    cat: Image.Image, encoded: Encode, kind: str, mode: str, shrink_to: int | None
) -> None:
    data = encoded(cat.convert(mode), "JPEG", **KINDS[kind])
    whole = decode(data, shrink_to=shrink_to)
    for cut in (data[:-1], data[:-2]):
        found = decode(cut, shrink_to=shrink_to)
        assert found.image.tobytes() == whole.image.tobytes()
        assert found.metadata == whole.metadata


def test_gray_at_the_bottom_is_not_taken_for_missing(encoded: Encode, cat: Image.Image) -> None:
    """The decoder fills what is missing with just this gray."""
    picture = Image.new("RGB", (320, 240), (128, 128, 128))
    picture.paste(cat.resize((320, 80)))
    for progressive in (False, True):
        data = encoded(picture, "JPEG", progressive=progressive)
        assert decode(data[:-2]).metadata.notes == ()


@pytest.mark.parametrize("shrink_to", [None, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_in_its_last_percent_is_decoded_with_a_note(
    cat: Image.Image, encoded: Encode, kind: str, shrink_to: int | None
) -> None:
    data = encoded(cat, "JPEG", **KINDS[kind])
    whole, found = decode(data).image, decode(data[: int(len(data) * 0.99)], shrink_to=shrink_to)
    (note,) = found.metadata.notes
    assert note.startswith("its file breaks off: the last ")
    assert note.endswith("% of its rows are missing or incomplete")
    missing = float(note.split("last ")[1].split("%")[0]) / 100
    assert 0 < missing < 0.1
    assert (found.metadata.width, found.metadata.height) == whole.size
    if shrink_to is None:
        rows = int(whole.height * (1 - missing)) - 1
        np.testing.assert_array_equal(np.asarray(found.image)[:rows], np.asarray(whole)[:rows])


@pytest.mark.parametrize("shrink_to", [None, 40])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.8])
@pytest.mark.parametrize("kind", KINDS)
def test_with_more_missing_it_is_refused(
    cat: Image.Image, encoded: Encode, kind: str, share: float, shrink_to: int | None
) -> None:
    data = encoded(cat, "JPEG", **KINDS[kind])
    with pytest.raises(DamagedPhoto, match=r"truncated JPEG file \(.*missing\)"):
        decode(data[: int(len(data) * share)], shrink_to=shrink_to)


def test_scans_of_detail_that_never_began_count_as_missing(cat: Image.Image, encoded: Encode) -> None:
    """Cut between two scans of a progressive file: what is there is whole, and coarse."""
    data = encoded(cat, "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for at in scans[1:]:
        with pytest.raises(DamagedPhoto, match="missing"):
            decode(data[:at])
    coarse = np.asarray(decode(data[:-2]).image)
    np.testing.assert_array_equal(coarse, np.asarray(decode(data).image))


def test_what_comes_after_the_end_marker_does_not_matter(cat: Image.Image, encoded: Encode) -> None:
    data = encoded(cat, "JPEG")
    assert decode(data + b"\0" * 100 + b"\xff\xda").metadata.notes == ()


def test_a_thumbnail_in_the_header_does_not_stand_for_the_photo(cat: Image.Image, encoded: Encode) -> None:
    """It has scans of its own, and an end marker."""
    thumbnail = encoded(cat.resize((48, 32)), "JPEG")
    data = encoded(cat, "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert decode(data[:-2]).metadata.notes == ()
    start = data.index(b"\xff\xda", 20 + len(thumbnail))
    with pytest.raises(DamagedPhoto):
        decode(data[: start + 200])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"restart_marker_blocks": 1, "subsampling": 0},
        {"restart_marker_blocks": 3},
        {"restart_marker_rows": 1, "progressive": True},
    ],
    ids=str,
)
def test_wherever_a_file_is_cut_nothing_that_is_missing_goes_unsaid(
    cat: Image.Image, encoded: Encode, options: dict[str, Any]
) -> None:
    data = encoded(cat.resize((96, 64)), "JPEG", quality=90, **options)
    whole = np.asarray(decode(data).image)
    for end in range(len(data) - 400, len(data)):
        try:
            photo = decode(data[:end])
        except DamagedPhoto:
            continue
        if not photo.metadata.notes:
            np.testing.assert_array_equal(np.asarray(photo.image), whole)
