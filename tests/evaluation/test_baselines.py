from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from vitmae_search.evaluation import colour_histogram, interval, raw_pixels


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.coffee())


def test_raw_pixels_ignore_brightness_and_see_places(photo: Image.Image) -> None:
    brighter = photo.point(lambda value: value // 2 + 60)
    mirrored = ImageOps.mirror(photo)
    ours, bright, mirror = (raw_pixels(image) for image in (photo, brighter, mirrored))
    assert ours.shape == (32 * 32 * 3,)
    assert cosine(ours, bright) > 0.99
    assert cosine(ours, mirror) < 0.9
    assert raw_pixels(photo, 16, grey=True).shape == (256,)


def test_a_histogram_sees_colours_and_no_places(photo: Image.Image) -> None:
    ours = colour_histogram(photo)
    assert ours.shape == (512,)
    assert np.linalg.norm(ours) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(ours, colour_histogram(ImageOps.mirror(photo)))
    assert cosine(ours, colour_histogram(ImageOps.invert(photo))) < 0.5
    assert colour_histogram(Image.new("RGB", (3, 3), "white"))[-1] == 1


def test_the_interval_holds_the_mean_and_narrows_with_more_photos() -> None:
    values = np.random.default_rng(1).random(400)
    low, high = interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    few_low, few_high = interval(values[:40])
    assert few_high - few_low > high - low
    assert interval(values) == (low, high)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        interval([])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
