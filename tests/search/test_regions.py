"""A part of a picture is found in photos, at its place and size, by patch tokens."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import LibraryError
from vitmae_search.library.region_search import cut_out, read_box
from vitmae_search.records import Box
from vitmae_search.search.regions import TokenCache, fit_region, tokens_of

SIDE, WIDTH = 12, 24


def tokens(seed: int) -> np.ndarray:
    """The patches of a picture of which neighbours are alike, all with a strong direction in common."""
    small = np.random.default_rng(seed).standard_normal((6, 6, WIDTH))
    return (small.repeat(2, 0).repeat(2, 1) + 9).astype(np.float32)


@pytest.mark.parametrize(("left", "top", "side"), [(0, 0, 4), (6, 4, 6), (7, 1, 5)])
def test_a_part_fits_where_it_is(left: int, top: int, side: int) -> None:
    photos = [tokens(seed) for seed in range(6)]
    part = photos[4][top : top + side, left : left + side]
    at = np.linspace(0, side - 1e-6, SIDE).astype(int)
    fits = fit_region(part[at][:, at], 1.0, photos, [1.0] * 6)
    assert int(np.argmax([fit.score for fit in fits])) == 4
    box = fits[4].box
    assert abs(box.left + box.width / 2 - (left + side / 2) / SIDE) < 0.1
    assert abs(box.top + box.height / 2 - (top + side / 2) / SIDE) < 0.1
    assert 0.5 < box.width / (side / SIDE) < 1.5


def test_windows_have_the_shape_of_the_part_in_pixels() -> None:
    photos = [tokens(seed) for seed in range(3)]
    for fit in fit_region(tokens(9), 2.0, photos, [1.0, 2.0, 0.5]):
        assert -1 <= fit.score <= 1
        assert fit.box.left + fit.box.width <= 1 + 1e-9
        assert fit.box.top + fit.box.height <= 1 + 1e-9
    square, alike, upright = (fit.box for fit in fit_region(tokens(9), 2.0, photos, [1.0, 2.0, 0.5]))
    assert square.width > square.height
    assert alike.width == pytest.approx(alike.height)
    assert upright.width > square.width * 0.99 or upright.height < square.height


def test_plain_pictures_have_places_too() -> None:
    plain = np.ones((SIDE, SIDE, WIDTH), np.float32)
    assert all(np.isfinite(fit.score) for fit in fit_region(plain, 1.0, [plain, plain], [1.0, 1.0]))


def test_tokens_are_computed_once_and_cancelled() -> None:
    cache, encoded, said = TokenCache(), [], []

    def encode(images: list[Image.Image]) -> np.ndarray:
        encoded.extend(images)
        return np.ones((len(images), 2, 2, 3), np.float32)

    def read(number: int) -> Image.Image | None:
        return None if number == 3 else Image.new("RGB", (8, 8))

    def ask(count: int, **options: object) -> dict[int, np.ndarray]:
        digests = [f"{i}" for i in range(count)]
        return tokens_of(digests, read, encode, fingerprint="a", cache=cache, **options)

    assert len(ask(40, cancelled=lambda: len(encoded) > 0)) == 15  # after the first batch
    found = ask(40, on_progress=lambda done, total: said.append((done, total)))
    assert sorted(found) == [i for i in range(40) if i != 3]  # its photo is gone
    assert len(encoded) == 39
    assert said[0] == (15, 40)
    assert said[-1] == (40, 40)


def test_the_cache_keeps_what_was_used_last() -> None:
    cache = TokenCache(most_bytes=2 * 12)
    for name in ("a", "b"):
        cache.put("space", name, np.zeros((1, 2, 3), np.float16))
    assert cache.get("space", "a") is not None
    cache.put("space", "c", np.zeros((1, 2, 3), np.float16))
    assert cache.get("space", "b") is None
    assert cache.get("space", "a") is not None
    assert cache.get("other", "a") is None


def test_boxes_are_shares_or_pixels() -> None:
    assert read_box((0.5, 0.25, 0.5, 0.5), (200, 100)) == Box(0.5, 0.25, 0.5, 0.5)
    assert read_box((100, 25, 100, 50), (200, 100)) == Box(0.5, 0.25, 0.5, 0.5)
    assert read_box((-50, 0, 150, 500), (200, 100)) == Box(0, 0, 0.5, 1)
    for wrong in ((0, 0, 1), (0, 0, 0, 1), (0.2, 0.2, float("nan"), 1), (300, 0, 5, 5)):
        with pytest.raises(LibraryError):
            read_box(wrong, (200, 100))
    image = Image.new("RGB", (200, 100))
    assert cut_out(image, Box(0.5, 0.25, 0.5, 0.5)).size == (100, 50)
    assert cut_out(image, Box(0.999, 0.999, 0.001, 0.001)).size == (4, 4)
