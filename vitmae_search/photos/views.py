"""Views of a picture: the changes that a photo goes through and should still be found after.

Pure functions of PIL, deterministic, RGB in and a new RGB out. The demonstration's folder is made of
`VIEWS`, and the evaluation searches with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from io import BytesIO

from PIL import Image, ImageEnhance, ImageOps

View = Callable[[Image.Image], Image.Image]


def original(image: Image.Image) -> Image.Image:
    """The picture as it is, a copy."""
    return image.copy()


def crop(image: Image.Image, *, area: float = 0.5, position: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """A part with the same proportions: `area` is the share of pixels kept, 0 < area ≤ 1.

    `position` (x, y), each 0 to 1, is where it lies: (0, 0) top left, (0.5, 0.5) the middle.
    """
    if not 0 < area <= 1 or not all(0 <= value <= 1 for value in position):
        raise ValueError(f"area={area}, position={position}: 0 < area <= 1, 0 <= position <= 1")
    side = math.sqrt(area)
    width, height = max(1, round(image.width * side)), max(1, round(image.height * side))
    left = round((image.width - width) * position[0])
    top = round((image.height - height) * position[1])
    return image.crop((left, top, left + width, top + height))


def tilt(
    image: Image.Image, *, degrees: float = 7.0, fill: tuple[int, int, int] | None = None
) -> Image.Image:
    """Turned anticlockwise by -90 < `degrees` < 90.

    With a `fill` colour the size stays and the corners take it; without, the largest upright
    rectangle within the turned picture is cut out, with no corner showing.
    """
    if not -90 < degrees < 90:
        raise ValueError(f"degrees={degrees}: more than -90, less than 90")
    turned = image.rotate(degrees, Image.Resampling.BICUBIC, expand=fill is None, fillcolor=fill)
    if fill is not None or not degrees:
        return turned
    width, height = _inside(image.width, image.height, math.radians(abs(degrees)))
    # One pixel less on each side: the interpolation mixes the black outside into the edge.
    width, height = max(1, math.floor(width) - 2), max(1, math.floor(height) - 2)
    left, top = (turned.width - width) // 2, (turned.height - height) // 2
    return turned.crop((left, top, left + width, top + height))


def _inside(width: float, height: float, angle: float) -> tuple[float, float]:
    """The sides of the largest upright rectangle in a width × height one turned by 0 < `angle` < π/2."""
    sine, cosine = math.sin(angle), math.cos(angle)
    longer, shorter = max(width, height), min(width, height)
    if shorter <= 2 * sine * cosine * longer or abs(sine - cosine) < 1e-9:
        # A narrow strip: two corners touch its long sides, at their middle.
        half = shorter / 2
        return (half / sine, half / cosine) if width >= height else (half / cosine, half / sine)
    spread = cosine * cosine - sine * sine
    return (width * cosine - height * sine) / spread, (height * cosine - width * sine) / spread


def mirror(image: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(image)


def tone(
    image: Image.Image, *, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0
) -> Image.Image:
    """Brightness, contrast and colour multiplied, in this order; 1.0 leaves each, 0.0 removes it."""
    result = ImageEnhance.Brightness(image).enhance(brightness)
    result = ImageEnhance.Contrast(result).enhance(contrast)
    return ImageEnhance.Color(result).enhance(saturation)


def hue(image: Image.Image, *, degrees: float) -> Image.Image:
    """Every colour moved along the colour circle by so many degrees."""
    channels = list(image.convert("HSV").split())
    shift = round(degrees / 360 * 256)
    channels[0] = channels[0].point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", channels).convert("RGB")


def recompress(image: Image.Image, *, quality: int = 20, longest: int | None = None) -> Image.Image:
    """Through a JPEG of this `quality`, 1 to 95, scaled down first to at most `longest` pixels a side."""
    small = image
    if longest is not None and max(image.size) > longest:
        small = ImageOps.contain(image, (longest, longest), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer, formats=["JPEG"]) as decoded:
        return decoded.convert("RGB")


def grey(image: Image.Image) -> Image.Image:
    """Without colour."""
    return ImageOps.grayscale(image).convert("RGB")


def screenshot(
    image: Image.Image, *, border: float = 0.08, colour: tuple[int, int, int] = (32, 33, 36)
) -> Image.Image:
    """As in a viewer's window: a bar above, dark edges around. `border` is a share of the longer side."""
    edge = max(1, round(border * max(image.size)))
    page = Image.new("RGB", (image.width + 2 * edge, image.height + 3 * edge), colour)
    bar = tuple(min(255, channel + 28) for channel in colour)
    page.paste(bar, (0, 0, page.width, edge))
    page.paste(image, (edge, 2 * edge))
    return page


VIEWS: tuple[tuple[str, View], ...] = (
    ("original", original),
    ("crop-middle", partial(crop, area=0.6)),
    ("crop-corner", partial(crop, area=0.45, position=(0.1, 0.15))),
    ("tilt", partial(tilt, degrees=7.0)),
    ("mirror", mirror),
    ("dark", partial(tone, brightness=0.6, contrast=0.9, saturation=0.85)),
    ("vivid", partial(tone, brightness=1.15, contrast=1.3, saturation=1.5)),
    ("recompressed", partial(recompress, quality=15, longest=320)),
    ("grey", grey),
    ("screenshot", screenshot),
)
"""Ten views, by names that suit a file name; the first is the picture itself."""
