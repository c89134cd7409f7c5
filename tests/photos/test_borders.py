"""Borders: found as they are, whatever compression, text and corners do, and nothing else is cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from vitmae_search.photos.borders import find_borders
from vitmae_search.photos.views import margin, phone_screenshot, recompress, tilt, viewer_window

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@pytest.fixture(params=NAMES)
def photo(request: pytest.FixtureRequest, real_photos: dict[str, Path]) -> Image.Image:
    with Image.open(real_photos[request.param]) as image:
        rgb = image.convert("RGB")
    rgb.thumbnail((480, 480))
    return rgb


def assert_is_box(found: tuple[int, ...] | None, due: tuple[int, ...], side: int) -> None:
    assert found is not None
    # To within two pixels of the copy that is looked at.
    assert np.abs(np.subtract(found, due)).max() <= 2 * -(-side // 256), (found, due)


@pytest.mark.parametrize("color", [BLACK, WHITE])
@pytest.mark.parametrize("quality", [30, 90])
def test_the_bars_of_a_phone_are_cut_off_with_their_text(
    photo: Image.Image, color: tuple[int, int, int], quality: int
) -> None:
    if photo.height > photo.width:
        photo = photo.rotate(90, expand=True)
    screen = recompress(phone_screenshot(photo, color=color), quality=quality)
    found = find_borders(screen)
    top = (screen.height - photo.height) // 2
    if find_borders(photo) is None:  # some photos have a dark or bright edge of their own
        assert_is_box(found, (0, top, photo.width, top + photo.height), max(screen.size))
    assert found is not None
    assert found[1] >= top - 8
    assert found[3] <= top + photo.height + 8


def test_margins_and_windows_are_cut_off(photo: Image.Image) -> None:
    edge = round(0.1 * max(photo.size))
    due = (edge, edge, edge + photo.width, edge + photo.height)
    if find_borders(photo) is None:
        page = recompress(margin(photo), quality=40)
        assert_is_box(find_borders(page), due, max(page.size))
        window = viewer_window(photo)  # a bar of another color above the edges
        edge = round(0.08 * max(photo.size))
        due = (edge, 2 * edge, edge + photo.width, 2 * edge + photo.height)
        assert_is_box(find_borders(window), due, max(window.size))


def test_rounded_corners_are_cut_off(photo: Image.Image) -> None:
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *photo.size), radius=min(photo.size) // 8, fill=255)
    rounded = Image.composite(photo, Image.new("RGB", photo.size, WHITE), mask)
    found = find_borders(ImageOps.expand(rounded, 40, WHITE))
    assert found is not None
    width, height = found[2] - found[0], found[3] - found[1]
    assert 0.8 * photo.width < width <= photo.width + 4
    assert 0.8 * photo.height < height <= photo.height + 4
    assert np.asarray(rounded.convert("L").crop((0, 0, 2, 2))).mean() == 255


def test_a_tilted_photo_is_cut_until_a_corner_is_not_filled(photo: Image.Image) -> None:
    tilted = tilt(photo, degrees=15, fill=(255, 0, 255))
    found = find_borders(tilted)
    assert found is not None
    left, top, right, bottom = (found[0] + 2, found[1] + 2, found[2] - 3, found[3] - 3)
    corners = [tilted.getpixel(at) for at in ((left, top), (left, bottom), (right, top), (right, bottom))]
    assert corners.count((255, 0, 255)) <= 3
    edges = [tilted.getpixel(at) for at in ((0, 0), (0, tilted.height - 1))]
    assert edges == [(255, 0, 255)] * 2
    assert found[2] - found[0] >= 0.6 * photo.width


def test_noise_and_plain_pictures_have_no_borders() -> None:
    draws = np.random.default_rng(0)
    noise = Image.fromarray(draws.integers(0, 256, (80, 60, 3), dtype=np.uint8))
    assert find_borders(noise) is None
    for size in ((1, 1), (1, 50), (50, 1), (300, 200)):
        assert find_borders(Image.new("RGB", size, "teal")) is None


def test_a_thin_line_at_the_edge_is_no_border(photo: Image.Image) -> None:
    if find_borders(photo) is None:
        assert find_borders(ImageOps.expand(photo, 1, BLACK)) is None
