from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from vitmae_search.errors import StorageError
from vitmae_search.photos import THUMBNAIL_SIDE, ThumbnailStore, digest, encode_thumbnail

KEY = digest(b"one")


def opened(data: bytes | None) -> Image.Image:
    assert data is not None
    image = Image.open(BytesIO(data), formats=["JPEG"])
    image.load()
    return image


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (320, 240)),
        ((480, 640), (240, 320)),
        ((320, 10), (320, 10)),
        ((7, 5), (7, 5)),
        ((5000, 1), (313, 1)),
        ((1, 5000), (1, 313)),
        ((479, 479), (479, 479)),
        ((481, 300), (241, 150)),
        ((816, 612), (272, 204)),
    ],
)
def test_the_longer_side_is_about_320_and_nothing_is_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = Image.new("RGB", size, "teal")
    assert opened(encode_thumbnail(image)).size == expected
    assert image.size == size
    assert max(expected) < 1.5 * THUMBNAIL_SIDE


def test_a_thumbnail_looks_like_its_photo(cat: Image.Image) -> None:
    small = opened(encode_thumbnail(cat)).convert("RGB")
    expected = cat.resize(small.size, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(small, float) - np.asarray(expected, float)).mean() < 6


def test_put_and_get(tmp_path: Path, cat: Image.Image) -> None:
    store = ThumbnailStore(tmp_path / "not yet" / "thumbnails")
    assert store.get(KEY) is None
    store.put(KEY, cat)
    data = store.get(KEY)
    assert store.get(KEY) == data
    assert np.array_equal(np.asarray(opened(data)), np.asarray(opened(encode_thumbnail(cat))))
    assert store.path(KEY) == tmp_path / "not yet" / "thumbnails" / KEY[:2] / f"{KEY}.jpg"
    assert store.path(KEY).read_bytes() == data


def test_put_keeps_what_is_there(tmp_path: Path, cat: Image.Image) -> None:
    store = ThumbnailStore(tmp_path)
    store.put(KEY, cat)
    first = store.get(KEY)
    before = store.path(KEY).stat()
    store.put(KEY, Image.new("RGB", (9, 9)))
    assert store.get(KEY) == first
    assert store.path(KEY).stat().st_ino == before.st_ino


@pytest.mark.parametrize("left", [0, 3, 12, 500])
def test_a_torn_file_counts_as_none_and_is_replaced(tmp_path: Path, cat: Image.Image, left: int) -> None:
    store = ThumbnailStore(tmp_path)
    store.put(KEY, cat)
    whole = store.get(KEY)
    store.path(KEY).write_bytes(whole[:left])
    assert store.get(KEY) is None
    store.put(KEY, cat)
    assert store.get(KEY) == whole


def test_each_changed_byte_is_seen(tmp_path: Path, cat: Image.Image) -> None:
    """Most changes of a JPEG's body still decode, to another picture."""
    store = ThumbnailStore(tmp_path)
    store.put(KEY, cat)
    whole = store.get(KEY)
    assert whole is not None
    for place in [*range(120), *range(120, len(whole), 37), len(whole) - 1]:
        store.path(KEY).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.get(KEY) is None
    store.path(KEY).write_bytes(encode_thumbnail(cat))
    assert store.get(KEY) is None, "without a checksum, as earlier versions wrote it"


def test_delete(tmp_path: Path, cat: Image.Image) -> None:
    store = ThumbnailStore(tmp_path)
    store.put(KEY, cat)
    store.delete(KEY)
    assert store.get(KEY) is None
    store.delete(KEY)


@pytest.mark.parametrize("bad", ["", "abc", "../" * 20 + "aaaa", KEY.upper(), KEY + "\n", KEY[:-1] + "/"])
def test_only_a_digest_names_a_file(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case"):
        ThumbnailStore(tmp_path).path(bad)


def test_what_cannot_be_written_is_a_storage_error(tmp_path: Path, cat: Image.Image) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = ThumbnailStore(tmp_path / "file")
    assert store.get(KEY) is None
    with pytest.raises(StorageError, match=r"cannot write the thumbnail .*: Not a directory"):
        store.put(KEY, cat)
    with pytest.raises(StorageError, match="cannot delete"):
        store.delete(KEY)


def test_many_threads_put_the_same_one(tmp_path: Path, cat: Image.Image) -> None:
    store = ThumbnailStore(tmp_path)
    ThumbnailStore(tmp_path / "other").put(KEY, cat)
    expected = ThumbnailStore(tmp_path / "other").get(KEY)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda turn: store.put(KEY, cat) if turn % 2 else store.get(KEY), range(60)))
    assert set(seen) <= {expected, None}
    assert os.listdir(tmp_path / KEY[:2]) == [f"{KEY}.jpg"]


def test_a_colour_profile_goes_with_the_thumbnail(cat: Image.Image) -> None:
    image = cat.copy()
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert opened(encode_thumbnail(image)).info["icc_profile"] == image.info["icc_profile"]
    assert "icc_profile" not in opened(encode_thumbnail(cat)).info


def test_a_large_profile_is_applied_and_not_kept() -> None:
    """A scanner's may have megabytes; a small one goes with the thumbnail, as it is exact."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")
    image = Image.new("RGB", (64, 48), (250, 20, 10))
    for large in (False, True):
        image.info = {"icc_profile": swapped + bytes(2_000_000) if large else swapped}
        data = encode_thumbnail(image)
        assert len(data) < 10_000
        with Image.open(BytesIO(data)) as thumbnail:
            shown = (20, 250, 10) if large else (250, 20, 10)
            assert thumbnail.getpixel((9, 9)) == pytest.approx(shown, abs=12)
            assert thumbnail.info.get("icc_profile") == (None if large else swapped)


def test_a_thumbnail_under_another_name_is_not_shown(tmp_path: Path, cat: Image.Image) -> None:
    store = ThumbnailStore(tmp_path)
    store.put(KEY, cat)
    other = "0" * 64
    store.path(other).parent.mkdir(parents=True)
    store.path(KEY).rename(store.path(other))
    assert store.get(other) is None
