"""Random views of a photo to train with: changes that leave it the same photo to a person.

Searches are evaluated with the fixed views of `photos.views`. The strength of these is random, so that
nothing is trained on the evaluation itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from vitmae_search.photos.views import (
    color_filter,
    grey,
    hue,
    margin,
    mirror,
    phone_screenshot,
    quarter_turn,
    recompress,
    sticker,
    tilt,
    tone,
    viewer_window,
)

_Augmentation = Callable[[Image.Image, Generator], Image.Image]


def training_view(image: Image.Image, *, seed: int, photo: int, view: int) -> Image.Image:
    """One view of a photo, the same for the same numbers.

    Args:
        image: RGB.
        seed: The training's seed.
        photo: Number of the photo.
        view: Number of the view; 0 is the unchanged photo, since that is what a library holds.

    Returns:
        A new RGB image.
    """
    if view == 0:
        return image.copy()
    rng = np.random.default_rng((seed, photo, view))
    changed = image
    for probability, augmentation in _AUGMENTATIONS:
        if rng.random() < probability:
            changed = augmentation(changed, rng)
    return changed.copy() if changed is image else changed


def _crop(image: Image.Image, rng: Generator) -> Image.Image:
    """12 to 100 % of the area, with 3:4 to 4:3 times the image's own aspect ratio; a quarter in a corner."""
    area, stretch = rng.uniform(0.12, 1.0), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)) / 2)
    width = max(1, min(image.width, round(image.width * math.sqrt(area) * stretch)))
    height = max(1, min(image.height, round(image.height * math.sqrt(area) / stretch)))
    x, y = rng.integers(2, size=2) if rng.random() < 0.25 else rng.random(2)
    left, top = round((image.width - width) * float(x)), round((image.height - height) * float(y))
    return image.crop((left, top, left + width, top + height))


def _quarter_turn(image: Image.Image, rng: Generator) -> Image.Image:
    return quarter_turn(image, turns=int(rng.integers(1, 4)))


def _tilt(image: Image.Image, rng: Generator) -> Image.Image:
    """Up to 20° either way; the corners are cropped, or filled with a color."""
    degrees = rng.uniform(-20, 20)
    return tilt(image, degrees=degrees, fill=_gray_color(rng) if rng.random() < 0.5 else None)


def _hue(image: Image.Image, rng: Generator) -> Image.Image:
    return hue(image, degrees=rng.uniform(-40, 40))


def _tone(image: Image.Image, rng: Generator) -> Image.Image:
    brightness, contrast, saturation = rng.uniform(0.55, 1.45, 3)
    return tone(image, brightness=brightness, contrast=contrast, saturation=saturation)


def _tint(image: Image.Image, rng: Generator) -> Image.Image:
    """White balance: the gain of each channel changes by up to a fifth."""
    gains = rng.uniform(0.8, 1.2, 3)
    levels = np.arange(256)
    return image.point([int(level) for gain in gains for level in (levels * gain).clip(0, 255)])


def _grey(image: Image.Image, rng: Generator) -> Image.Image:
    return grey(image)


def _blur(image: Image.Image, rng: Generator) -> Image.Image:
    """Gaussian blur with a radius of up to 1.5 % of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.015) * max(image.size)))


def _filter(image: Image.Image, rng: Generator) -> Image.Image:
    red, green, blue = rng.uniform(0.75, 1.25, 3)
    return color_filter(
        image, tint=(red, green, blue), fade=rng.uniform(0, 0.3), vignette=rng.uniform(0, 0.8)
    )


def _sticker(image: Image.Image, rng: Generator) -> Image.Image:
    """A word of random letters, from a fifth of the width to all of it, on a color."""
    text = "".join(rng.choice(list("abcdefghij klmnopqrst uvwxyz "), size=rng.integers(3, 25)))
    x, y = rng.random(2)
    red, green, blue = (int(level) for level in rng.integers(256, size=3))
    color = _gray_color(rng) if rng.random() < 0.5 else (red, green, blue)
    return sticker(image, text=text.strip() or "a", position=(x, y), width=rng.uniform(0.2, 1.0), color=color)


def _frame(image: Image.Image, rng: Generator) -> Image.Image:
    """A phone's screen, a margin or a viewer's window."""
    color, kind = _gray_color(rng), rng.random()
    if kind < 0.5:
        return phone_screenshot(image, color=color, aspect=rng.uniform(1.4, 2.3))
    if kind < 0.75:
        return margin(image, width=rng.uniform(0.01, 0.2), color=color)
    return viewer_window(image, border=rng.uniform(0.02, 0.12), color=color)


def _recompress(image: Image.Image, rng: Generator) -> Image.Image:
    """JPEG of quality 5 to 60, half of them reduced to 120 to 480 pixels on the longer side."""
    longest = int(rng.integers(120, 481)) if rng.random() < 0.5 else None
    return recompress(image, quality=int(rng.integers(5, 61)), longest=longest)


def _mirror(image: Image.Image, rng: Generator) -> Image.Image:
    return mirror(image)


def _gray_color(rng: Generator) -> tuple[int, int, int]:
    """Black, white or a gray, as in the background of pages and viewers."""
    level = (0, 255, int(rng.integers(256)))[rng.integers(3)]
    return level, level, level


_AUGMENTATIONS: tuple[tuple[float, _Augmentation], ...] = (
    (0.2, _mirror),
    (0.15, _quarter_turn),
    (0.4, _tilt),
    (0.7, _crop),
    (0.2, _hue),
    (0.5, _tone),
    (0.3, _tint),
    (0.1, _grey),
    (0.2, _blur),
    (0.1, _filter),
    (0.15, _sticker),
    (0.25, _frame),
    (0.4, _recompress),
)
"""The probability of each, in the order in which they are applied: camera first, copying last."""
