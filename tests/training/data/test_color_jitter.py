"""Views of whole batches: each change against a plain implementation of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from vitmae_search.training.data.color_jitter import ColorJitter, augment, random_color_jitter
from vitmae_search.training.data.random_resized_crop import Crops, random_crops, resize_crops


def make_jitter(count: int, **changes: Tensor) -> ColorJitter:
    """No change but these."""
    one = torch.ones(count)
    still = {"angle": one * 0, "corner": -one, "brightness": one, "contrast": one, "saturation": one}
    still |= {"channel_gain": torch.ones(count, 3), "grayscale": torch.zeros(count, dtype=torch.bool)}
    return ColorJitter(**{**still, **changes})


def whole(count: int, side: int, flipped: bool = False) -> Crops:
    zero, size = torch.zeros(count, dtype=torch.long), torch.full((count,), side)
    return Crops(zero, zero, size, size, torch.full((count,), flipped))


@pytest.fixture
def image(photo: Image.Image) -> Tensor:
    """(1, 64, 64, 3) uint8, with neither black nor white, so that no change is cut off."""
    small = np.asarray(photo.resize((64, 64), Image.Resampling.LANCZOS))
    return torch.from_numpy((80 + small * 0.3).astype(np.uint8))[None]


def test_no_change_is_the_crop(image: Tensor) -> None:
    crops = random_crops(4, 64, 64, scale=(0.2, 1.0), flip=True, generator=torch.Generator().manual_seed(0))
    images = image.expand(4, -1, -1, -1)
    torch.testing.assert_close(augment(images, crops, make_jitter(4), 32), resize_crops(images, crops, 32))


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_colors_change_as_pillows_do(image: Tensor, name: str, enhance: type, factor: float) -> None:
    out = augment(image, whole(1, 64), make_jitter(1, **{name: torch.tensor([factor])}), 64)
    expected = np.asarray(enhance(Image.fromarray(image[0].numpy())).enhance(factor))
    assert np.abs(out[0].permute(1, 2, 0).numpy() - expected).max() <= 2  # Pillow rounds


def test_grayscale_has_no_color_whatever_else_is_done(image: Tensor) -> None:
    g = torch.Generator().manual_seed(1)
    many = random_color_jitter(64, g)
    out = augment(image.expand(64, -1, -1, -1), whole(64, 64), many, 16)
    colored = (out.amax(1) - out.amin(1)).amax((1, 2)) > 0.01
    assert torch.equal(colored, ~many.grayscale)
    assert 0 < int(many.grayscale.sum()) < 64
    plain = augment(image, whole(1, 64), make_jitter(1, grayscale=torch.tensor([True])), 64)
    expected = np.asarray(Image.fromarray(image[0].numpy()).convert("L"))
    assert np.abs(plain[0, 0].numpy() - expected).max() <= 1


def test_a_gain_is_a_factor_of_each_channel(image: Tensor) -> None:
    gain = torch.tensor([[1.1, 1.0, 0.9]])
    out = augment(image, whole(1, 64), make_jitter(1, channel_gain=gain), 64)
    torch.testing.assert_close(out, augment(image, whole(1, 64), make_jitter(1), 64) * gain[:, :, None, None])


@pytest.mark.parametrize("flipped", [False, True])
def test_a_rotation_is_pillows_of_the_same_angle(image: Tensor, flipped: bool) -> None:
    angle = math.radians(12)
    out = augment(image, whole(1, 64, flipped), make_jitter(1, angle=torch.tensor([angle])), 64)
    rotated = Image.fromarray(image[0].numpy()).rotate(12, Image.Resampling.BILINEAR)
    expected = np.asarray(rotated).astype(float)
    ours = out[0].permute(1, 2, 0).numpy()
    if flipped:
        ours = ours[:, ::-1]
    middle = slice(16, 48)
    assert np.abs(ours[middle, middle] - expected[middle, middle]).mean() < 0.5
    assert np.abs(ours[middle, middle] - image[0].numpy()[middle, middle]).mean() > 2


def test_a_small_rotation_moves_little_and_keeps_the_box(image: Tensor) -> None:
    crops = random_crops(32, 64, 64, scale=(0.2, 1.0), flip=True, generator=torch.Generator().manual_seed(2))
    images = image.expand(32, -1, -1, -1)
    rotated = augment(images, crops, make_jitter(32, angle=torch.full((32,), 1e-4)), 32)
    assert float((rotated - resize_crops(images, crops, 32)).abs().mean()) < 2  # bilinear beside bicubic


def test_an_image_does_not_depend_on_the_others_of_its_batch(image: Tensor) -> None:
    g = torch.Generator().manual_seed(3)
    crops = random_crops(8, 64, 64, scale=(0.2, 1.0), flip=True, generator=g)
    jitter = random_color_jitter(8, g)
    images = torch.randint(0, 256, (8, 64, 64, 3), generator=g, dtype=torch.uint8)
    together = augment(images, crops, jitter, 32)
    for i in range(8):
        one = [type(r)(*(getattr(r, n)[i : i + 1] for n in r.__slots__)) for r in (crops, jitter)]
        torch.testing.assert_close(augment(images[i : i + 1], *one, 32), together[i : i + 1])


def test_probabilities_and_ranges_are_those_of_the_docstring() -> None:
    jitter = random_color_jitter(20_000, torch.Generator().manual_seed(0))
    assert float((jitter.angle != 0).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(jitter.grayscale.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert float((jitter.contrast != 1).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert torch.equal(jitter.contrast != 1, jitter.brightness != 1)
    for values, greatest in (
        (jitter.angle, math.radians(15)),
        (jitter.saturation - 1, 0.4),
        (jitter.channel_gain - 1, 0.1),
    ):
        assert 0.95 * greatest < float(values.abs().max()) <= greatest + 1e-6
        assert float(values.mean()) == pytest.approx(0, abs=0.02 * greatest)


@pytest.mark.parametrize("level", [0.0, 140.0, 255.0])
def test_a_rotation_fills_its_corners_with_gray_or_reflects(image: Tensor, level: float) -> None:
    angle = torch.tensor([math.radians(15)])
    reflected = augment(image, whole(1, 64), make_jitter(1, angle=angle), 64)[0]
    filled = augment(image, whole(1, 64), make_jitter(1, angle=angle, corner=torch.tensor([level])), 64)[0]
    outside = Image.new("L", (64, 64), 255).rotate(15, Image.Resampling.NEAREST)
    outside = torch.from_numpy(np.asarray(outside) == 0)
    same = (filled == reflected).all(dim=0)
    assert (same == ~outside).float().mean() > 0.98  # the edge's pixels are rounded differently
    assert (filled[:, ~same] == level).all()
    assert outside[0, 0]
    assert not same[0, 0]


def test_half_of_the_rotations_have_filled_corners() -> None:
    drawn = random_color_jitter(4000, torch.Generator().manual_seed(0))
    filled = drawn.corner >= 0
    assert filled.float().mean() == pytest.approx(0.5, abs=0.03)
    levels = drawn.corner[filled]
    assert (levels == 0).float().mean() == pytest.approx(1 / 3, abs=0.04)
    assert (levels == 255).float().mean() == pytest.approx(1 / 3, abs=0.04)
    assert levels.max() <= 255
