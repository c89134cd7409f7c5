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


def test_a_viewer_window_holds_the_picture(cat: Image.Image) -> None:
    page = views.viewer_window(cat, border=0.1)
    edge = round(0.1 * cat.width)
    assert page.size == (cat.width + 2 * edge, cat.height + 3 * edge)
    inside = page.crop((edge, 2 * edge, edge + cat.width, 2 * edge + cat.height))
    assert inside.tobytes() == cat.tobytes()


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255)])
def test_a_phone_screenshot_has_bars_and_a_status_bar(cat: Image.Image, color: tuple[int, int, int]) -> None:
    screen = views.phone_screenshot(cat, color=color)
    assert screen.width == cat.width
    assert screen.height / screen.width == pytest.approx(19.5 / 9, rel=0.01)
    top = (screen.height - cat.height) // 2
    assert screen.crop((0, top, cat.width, top + cat.height)).tobytes() == cat.tobytes()
    pixels = np.asarray(screen)
    status, rest = pixels[: screen.height // 50 * 2], pixels[screen.height // 50 * 2 : top]
    assert (rest == color).all()
    assert (pixels[top + cat.height :] == color).all()
    drawn = (status != color).any(axis=2)
    assert 0.005 < drawn.mean() < 0.2  # a clock and a battery
    assert drawn[:, : cat.width // 3].any()
    assert drawn[:, -cat.width // 3 :].any()


def test_a_phone_screenshot_of_a_tall_picture_has_bars_at_its_sides() -> None:
    screen = views.phone_screenshot(Image.new("RGB", (100, 1000), "red"))
    assert screen.size == (462, 1000)
    assert screen.getpixel((231, 500)) == (255, 0, 0)
    assert screen.getpixel((10, 500)) == screen.getpixel((450, 500)) == (0, 0, 0)


def test_a_margin_surrounds_the_picture(cat: Image.Image) -> None:
    page = views.margin(cat, width=0.1)
    edge = round(0.1 * cat.width)
    assert page.size == (cat.width + 2 * edge, cat.height + 2 * edge)
    assert page.getpixel((edge - 1, edge - 1)) == (255, 255, 255)
    assert page.crop((edge, edge, edge + cat.width, edge + cat.height)).tobytes() == cat.tobytes()


def test_quarter_turns_lose_no_pixel(cat: Image.Image) -> None:
    left = views.quarter_turn(cat)
    assert left.size == (cat.height, cat.width)
    assert (np.asarray(left) == np.rot90(np.asarray(cat))).all()
    assert views.quarter_turn(left, turns=-1).tobytes() == cat.tobytes()


def test_a_sticker_covers_only_its_box(cat: Image.Image) -> None:
    covered = views.sticker(cat, position=(0, 0), width=0.5, color=(255, 255, 255))
    changed = (np.asarray(covered) != np.asarray(cat)).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert columns[-1] + 1 == pytest.approx(cat.width / 2, abs=2)
    assert rows[-1] < cat.height / 3
    box = np.asarray(covered)[: rows[-1] + 1, : columns[-1] + 1].mean(axis=2)
    assert (box > 200).mean() > 0.6
    assert (box < 80).mean() > 0.02  # black letters on white


def test_a_filter_fades_blacks_and_darkens_corners() -> None:
    black, white = Image.new("RGB", (101, 61)), Image.new("RGB", (101, 61), "white")
    faded = np.asarray(views.color_filter(black, fade=0.2, vignette=0.5))
    assert faded[30, 50].tolist() == [51, 51, 51]
    assert faded[0, 0].tolist() == [25, 25, 25]
    tinted = np.asarray(views.color_filter(white, tint=(1.0, 0.9, 0.5), fade=0, vignette=0))
    assert (tinted == [255, 229, 127]).all()


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
