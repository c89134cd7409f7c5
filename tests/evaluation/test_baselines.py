from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from vitmae_search.evaluation import color_histogram, figure, interval, perceptual_hash, raw_pixels


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
    ours = color_histogram(photo)
    assert ours.shape == (512,)
    assert np.linalg.norm(ours) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(ours, color_histogram(ImageOps.mirror(photo)))
    assert cosine(ours, color_histogram(ImageOps.invert(photo))) < 0.5
    assert color_histogram(Image.new("RGB", (3, 3), "white"))[-1] == 1


def test_the_hash_is_that_of_the_definition(photo: Image.Image) -> None:
    """DCT-II of the grey 32 × 32 picture without scale, its 8 × 8 lowest frequencies against their median."""
    from scipy.fft import dct

    small = np.asarray(photo.convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    lowest = dct(dct(small, axis=0), axis=1)[:8, :8]
    ours = perceptual_hash(photo)
    np.testing.assert_array_equal(ours.reshape(8, 8) > 0, lowest > np.median(lowest))
    assert set(ours.tolist()) == {-1.0, 1.0}


def test_the_cosine_of_two_hashes_is_their_hamming_similarity(photo: Image.Image) -> None:
    first, second = perceptual_hash(photo), perceptual_hash(ImageOps.mirror(photo))
    differ = int((first != second).sum())
    assert 0 < differ < 64
    assert cosine(first, second) == pytest.approx(1 - 2 * differ / 64)


def test_the_interval_holds_the_mean_and_narrows_with_more_photos() -> None:
    values = np.random.default_rng(1).random(400)
    low, high = interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    few_low, few_high = interval(values[:40])
    assert few_high - few_low > high - low
    assert interval(values) == (low, high)
    measured = figure(values)
    assert (measured.value, measured.low, measured.high) == (values.mean(), low, high)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        low, high = interval(draws.random(60) < 0.3, samples=200)
        held += low <= 0.3 <= high
    assert 180 <= held <= 199


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        interval([])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
