from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitmae_search.photos import views
from vitmae_search.photos.views import VIEWS

NAMES = [name for name, _ in VIEWS]


def test_there_are_ten_and_the_first_is_the_picture_itself(cat: Image.Image) -> None:
    assert len(VIEWS) == len(set(NAMES)) == 10
    name, view = VIEWS[0]
    assert name == "original"
    assert view(cat).tobytes() == cat.tobytes()


@pytest.mark.parametrize("index", range(10), ids=NAMES)
def test_views_are_rgb_deterministic_and_leave_the_picture_alone(cat: Image.Image, index: int) -> None:
    before = cat.tobytes()
    view = VIEWS[index][1]
    first, second = view(cat), view(cat)
    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes()
    first.paste("red", (0, 0, 5, 5))
    assert cat.tobytes() == before


def test_views_differ_from_each_other(cat: Image.Image) -> None:
    assert len({view(cat).tobytes() for _, view in VIEWS}) == 10


@pytest.mark.parametrize("index", range(10), ids=NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_views_survive_tiny_pictures(index: int, size: tuple[int, int]) -> None:
    assert min(VIEWS[index][1](Image.new("RGB", size, "navy")).size) >= 1


@pytest.mark.parametrize("area", [1.0, 0.6, 0.25])
def test_a_crop_keeps_its_share(cat: Image.Image, area: float) -> None:
    part = views.crop(cat, area=area)
    assert part.width * part.height == pytest.approx(area * cat.width * cat.height, rel=0.01)
    assert part.width / part.height == pytest.approx(cat.width / cat.height, rel=0.01)


def test_a_crop_lies_where_it_is_asked_to(cat: Image.Image) -> None:
    right, bottom = cat.size
    width, height = views.crop(cat, area=0.25).size
    corners = {
        (0.0, 0.0): (0, 0, width, height),
        (1.0, 0.0): (right - width, 0, right, height),
        (1.0, 1.0): (right - width, bottom - height, right, bottom),
    }
    for position, box in corners.items():
        assert views.crop(cat, area=0.25, position=position).tobytes() == cat.crop(box).tobytes()


@given(st.integers(20, 90), st.integers(20, 90), st.floats(-89, 89))
def test_a_tilt_shows_no_corner(width: int, height: int, degrees: float) -> None:
    """A white picture stays white: nothing of the black outside comes in."""
    turned = views.tilt(Image.new("RGB", (width, height), "white"), degrees=degrees)
    assert np.asarray(turned).min() >= 250


def test_a_tilt_cuts_out_as_much_as_fits() -> None:
    """A square turned by 45°: the largest upright square has half its area."""
    turned = views.tilt(Image.new("RGB", (1000, 1000)), degrees=45)
    assert turned.size == pytest.approx((1000 / math.sqrt(2),) * 2, abs=4)
    assert views.tilt(Image.new("RGB", (900, 600)), degrees=1e-6).size == pytest.approx((900, 600), abs=4)


def test_a_filled_tilt_keeps_the_size(cat: Image.Image) -> None:
    turned = views.tilt(cat, degrees=-20, fill=(1, 2, 3))
    assert turned.size == cat.size
    assert turned.getpixel((0, 0)) == (1, 2, 3)


def test_tone_leaves_or_removes(cat: Image.Image) -> None:
    assert views.tone(cat).tobytes() == cat.tobytes()
    dark = np.asarray(views.tone(cat, brightness=0.5), float)
    assert dark.mean() == pytest.approx(np.asarray(cat, float).mean() / 2, abs=1)
    drained = np.asarray(views.tone(cat, saturation=0.0))
    assert (drained[..., 0] == drained[..., 2]).all()


def test_a_hue_goes_round_and_leaves_greys_alone(cat: Image.Image) -> None:
    assert views.hue(Image.new("RGB", (2, 2), (255, 0, 0)), degrees=120).getpixel((0, 0)) == (0, 255, 0)
    there = np.asarray(views.hue(cat, degrees=90), float)
    back = np.asarray(views.hue(views.hue(cat, degrees=90), degrees=-90), float)
    whole = np.asarray(views.hue(cat, degrees=0), float)
    assert np.abs(back - whole).mean() < 3 < np.abs(there - whole).mean()
    grey = views.grey(cat)
    assert views.hue(grey, degrees=50).tobytes() == grey.tobytes()


def test_grey_and_mirror(cat: Image.Image) -> None:
    pixels = np.asarray(views.grey(cat))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert views.mirror(views.mirror(cat)).tobytes() == cat.tobytes()


def test_recompression_is_small_and_close(cat: Image.Image) -> None:
    small = views.recompress(cat, quality=15, longest=200)
    assert max(small.size) == 200
    same = np.asarray(views.recompress(cat, quality=90), float)
    assert 0 < np.abs(same - np.asarray(cat, float)).mean() < 5


def test_a_screenshot_holds_the_picture(cat: Image.Image) -> None:
    page = views.screenshot(cat, border=0.1)
    edge = round(0.1 * cat.width)
    assert page.size == (cat.width + 2 * edge, cat.height + 3 * edge)
    inside = page.crop((edge, 2 * edge, edge + cat.width, 2 * edge + cat.height))
    assert inside.tobytes() == cat.tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: views.crop(image, area=0),
        lambda image: views.crop(image, area=1.5),
        lambda image: views.crop(image, position=(0.5, -0.1)),
        lambda image: views.tilt(image, degrees=90),
    ],
)
def test_values_out_of_range_are_refused(cat: Image.Image, wrong: views.View) -> None:
    with pytest.raises(ValueError, match="="):
        wrong(cat)
