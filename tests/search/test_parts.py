"""Parts of photos: found in their photo, at any place and scale, and nowhere else."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.photos import encode_thumbnail
from vitmae_search.photos.views import recompress
from vitmae_search.search.parts import SIMILAR, correlations, find_whole

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")


@pytest.fixture(scope="module")
def pictures(real_photos: dict[str, Path]) -> dict[str, Image.Image]:
    return {name: Image.open(real_photos[name]).convert("RGB") for name in NAMES}


@pytest.fixture(scope="module")
def thumbnails(pictures: dict[str, Image.Image]) -> list[bytes]:
    return [encode_thumbnail(picture) for picture in pictures.values()]


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "china"])
@pytest.mark.parametrize("share", [0.35, 0.5, 0.7])
def test_a_part_is_found_in_its_photo(
    pictures: dict[str, Image.Image], thumbnails: list[bytes], name: str, share: float
) -> None:
    picture = pictures[name]
    draws = np.random.default_rng(round(100 * share))
    width, height = round(share * picture.width), round(0.8 * share * picture.height)  # another aspect ratio
    left, top = draws.integers(picture.width - width), draws.integers(picture.height - height)
    part = picture.crop((left, top, left + width, top + height)).resize((300, round(300 * height / width)))
    found = find_whole(recompress(part, quality=50), thumbnails)
    assert found is not None
    assert (NAMES[found[0]], found[1] >= SIMILAR) == (name, True)
    others = [data for other, data in zip(NAMES, thumbnails, strict=True) if other != name]
    assert find_whole(part, others) is None


def test_what_is_plain_or_unlike_is_a_part_of_nothing(thumbnails: list[bytes]) -> None:
    assert find_whole(Image.new("RGB", (80, 60), "teal"), thumbnails) is None
    soft = Image.linear_gradient("L").convert("RGB")
    assert find_whole(soft, thumbnails) is None
    assert find_whole(soft, []) is None
    small = BytesIO()
    Image.new("RGB", (2, 1)).save(small, "JPEG")
    assert find_whole(soft, [small.getvalue()]) is None
    for shape in ((1, 300), (300, 1), (1, 1)):
        find_whole(Image.new("RGB", shape), thumbnails)


def test_correlations_are_those_of_the_definition() -> None:
    draws = np.random.default_rng(0)
    photos = [draws.uniform(0, 255, shape).astype(np.float32) for shape in ((16, 12), (9, 16))]
    template = draws.uniform(0, 255, (5, 4)).astype(np.float32)
    found, shares = correlations([(0.3, template)], photos, 16, 8.0)
    for photo, best in zip(photos, found, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(photo, template.shape).reshape(-1, template.size)
        due = max(np.corrcoef(window, template.ravel())[0, 1] for window in windows)
        assert best == pytest.approx(due, abs=1e-4)
    assert shares.tolist() == [0.3, 0.3]
    assert correlations([(0.3, photos[0])], photos, 16, 8.0)[0].tolist() == pytest.approx([1.0, -1.0])
