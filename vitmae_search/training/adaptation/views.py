"""Random views of a photo to train with: the changes that a photo goes through, and is still the same.

The fixed views of `photos.views` are what a search is measured with; these draw their strength anew each
time, so that nothing learns the measure itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from vitmae_search.photos.views import grey, hue, mirror, recompress, screenshot, tilt, tone

_Change = Callable[[Image.Image, Generator], Image.Image]


def training_view(image: Image.Image, *, seed: int, photo: int, view: int) -> Image.Image:
    """View number `view` of photo number `photo`: a new RGB image, the same for the same numbers.

    View 0 is the picture as it is, since that is what a library holds. `image` is RGB.
    """
    if view == 0:
        return image.copy()
    draws = np.random.default_rng((seed, photo, view))
    changed = image
    for share, change in _CHANGES:
        if draws.random() < share:
            changed = change(changed, draws)
    return changed.copy() if changed is image else changed


def _crop(image: Image.Image, draws: Generator) -> Image.Image:
    """A part of 20 to 100 % of the area, 3:4 to 4:3 of the picture's own proportions."""
    area, stretch = draws.uniform(0.2, 1.0), math.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)) / 2)
    width = max(1, min(image.width, round(image.width * math.sqrt(area) * stretch)))
    height = max(1, min(image.height, round(image.height * math.sqrt(area) / stretch)))
    left, top = draws.integers(image.width - width + 1), draws.integers(image.height - height + 1)
    return image.crop((int(left), int(top), int(left) + width, int(top) + height))


def _tilt(image: Image.Image, draws: Generator) -> Image.Image:
    """Up to 20° either way; the corners are cut off, or filled with a colour."""
    degrees = draws.uniform(-20, 20)
    return tilt(image, degrees=degrees, fill=_colour(draws) if draws.random() < 0.5 else None)


def _hue(image: Image.Image, draws: Generator) -> Image.Image:
    return hue(image, degrees=draws.uniform(-40, 40))


def _tone(image: Image.Image, draws: Generator) -> Image.Image:
    brightness, contrast, saturation = draws.uniform(0.55, 1.45, 3)
    return tone(image, brightness=brightness, contrast=contrast, saturation=saturation)


def _tint(image: Image.Image, draws: Generator) -> Image.Image:
    """Each channel brighter or darker by up to a fifth, as another white balance makes it."""
    gains = draws.uniform(0.8, 1.2, 3)
    levels = np.arange(256)
    return image.point([int(level) for gain in gains for level in (levels * gain).clip(0, 255)])


def _grey(image: Image.Image, draws: Generator) -> Image.Image:
    return grey(image)


def _blur(image: Image.Image, draws: Generator) -> Image.Image:
    """With a radius of up to 1.5 % of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(draws.uniform(0, 0.015) * max(image.size)))


def _screenshot(image: Image.Image, draws: Generator) -> Image.Image:
    return screenshot(image, border=draws.uniform(0.02, 0.12), colour=_colour(draws))


def _recompress(image: Image.Image, draws: Generator) -> Image.Image:
    return recompress(image, quality=int(draws.integers(10, 61)))


def _mirror(image: Image.Image, draws: Generator) -> Image.Image:
    return mirror(image)


def _colour(draws: Generator) -> tuple[int, int, int]:
    """Black, white or a grey between: what pages and viewers are made of."""
    level = (0, 255, int(draws.integers(256)))[draws.integers(3)]
    return level, level, level


_CHANGES: tuple[tuple[float, _Change], ...] = (
    (0.2, _mirror),
    (0.4, _tilt),
    (0.7, _crop),
    (0.2, _hue),
    (0.5, _tone),
    (0.3, _tint),
    (0.1, _grey),
    (0.2, _blur),
    (0.2, _screenshot),
    (0.4, _recompress),
)
"""How often each change is made, in this order: what a camera does first, what a copy goes through last."""
