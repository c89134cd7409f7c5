"""Views of an image: changes after which a photo should still be found.

Deterministic functions from an RGB image to a new one. `VIEWS` make the folder of sample photos; the
evaluation and the adaptation use the functions with parameters of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

_STICKER_FONT_SIZE = 32  # pixels, before the sticker is resized

View = Callable[[Image.Image], Image.Image]


def original(image: Image.Image) -> Image.Image:
    """Return a copy."""
    return image.copy()


def crop(image: Image.Image, *, area: float = 0.5, position: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Cut out a part with the same aspect ratio.

    Args:
        image: RGB.
        area: Share of the pixels that are kept, 0 < area ≤ 1.
        position: (x, y) of the part, each 0 to 1: (0, 0) is top left, (0.5, 0.5) the middle.
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
    """Rotate by a small angle.

    Args:
        image: RGB.
        degrees: Angle counter-clockwise, -90 < degrees < 90.
        fill: Color of the corners; the size stays. None cuts out the largest upright rectangle within the
            rotated image.
    """
    if not -90 < degrees < 90:
        raise ValueError(f"degrees={degrees}: more than -90, less than 90")
    rotated = image.rotate(degrees, Image.Resampling.BICUBIC, expand=fill is None, fillcolor=fill)
    if fill is not None or not degrees:
        return rotated
    width, height = _inscribed(image.width, image.height, math.radians(abs(degrees)))
    # One pixel less on each side: interpolation mixes the black outside into the edge.
    width, height = max(1, math.floor(width) - 2), max(1, math.floor(height) - 2)
    left, top = (rotated.width - width) // 2, (rotated.height - height) // 2
    return rotated.crop((left, top, left + width, top + height))


def _inscribed(width: float, height: float, angle: float) -> tuple[float, float]:
    """Width and height of the largest upright rectangle in one that is rotated by 0 < `angle` < π/2."""
    sine, cosine = math.sin(angle), math.cos(angle)
    longer, shorter = max(width, height), min(width, height)
    if shorter <= 2 * sine * cosine * longer or abs(sine - cosine) < 1e-9:
        # A narrow strip: two corners touch the middle of its long sides.
        half = shorter / 2
        return (half / sine, half / cosine) if width >= height else (half / cosine, half / sine)
    spread = cosine * cosine - sine * sine
    return (width * cosine - height * sine) / spread, (height * cosine - width * sine) / spread


def mirror(image: Image.Image) -> Image.Image:
    """Exchange left and right."""
    return ImageOps.mirror(image)


def tone(
    image: Image.Image, *, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0
) -> Image.Image:
    """Multiply brightness, contrast and saturation, in this order.

    Args:
        image: RGB.
        brightness: Factor; 1.0 changes nothing, 0.0 is black.
        contrast: Factor; 1.0 changes nothing, 0.0 is plain gray.
        saturation: Factor; 1.0 changes nothing, 0.0 is without color.
    """
    result = ImageEnhance.Brightness(image).enhance(brightness)
    result = ImageEnhance.Contrast(result).enhance(contrast)
    return ImageEnhance.Color(result).enhance(saturation)


def hue(image: Image.Image, *, degrees: float) -> Image.Image:
    """Shift the hue of every pixel.

    Args:
        image: RGB.
        degrees: Angle on the color circle.
    """
    channels = list(image.convert("HSV").split())
    shift = round(degrees / 360 * 256)
    channels[0] = channels[0].point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", channels).convert("RGB")


def recompress(image: Image.Image, *, quality: int = 20, longest: int | None = None) -> Image.Image:
    """Encode as JPEG and decode again.

    Args:
        image: RGB.
        quality: JPEG quality, 1 to 95.
        longest: Longest side in pixels, to which the image is scaled down first; None keeps its size.
    """
    small = image
    if longest is not None and max(image.size) > longest:
        small = ImageOps.contain(image, (longest, longest), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer, formats=["JPEG"]) as decoded:
        return decoded.convert("RGB")


def grey(image: Image.Image) -> Image.Image:
    """Remove the color."""
    return ImageOps.grayscale(image).convert("RGB")


def quarter_turn(image: Image.Image, *, turns: int = 1) -> Image.Image:
    """Rotate by a multiple of 90°.

    Args:
        image: RGB.
        turns: Quarter turns counter-clockwise; negative ones are clockwise.
    """
    return image.rotate(90 * turns, expand=True)


def color_filter(
    image: Image.Image,
    *,
    tint: tuple[float, float, float] = (1.1, 1.0, 0.8),
    fade: float = 0.15,
    vignette: float = 0.5,
) -> Image.Image:
    """Apply a filter of the kind that photo apps offer: a tint, faded blacks, dark corners.

    Args:
        image: RGB.
        tint: Factors of red, green and blue.
        fade: Gray level of what was black, as a share of white, 0 to 1; white stays.
        vignette: Share of the light that the corners lose, 0 to 1; the middle loses none.
    """
    pixels = np.asarray(image, np.float32) * np.array(tint, np.float32)
    pixels = 255 * fade + (1 - fade) * pixels
    rows, columns = (np.linspace(-1, 1, side)[:, None] ** 2 for side in (image.height, image.width))
    light = 1 - vignette * (rows + columns.T) / 2
    return Image.fromarray((pixels * light[..., None]).clip(0, 255).astype(np.uint8))


def margin(
    image: Image.Image, *, width: float = 0.1, color: tuple[int, int, int] = (255, 255, 255)
) -> Image.Image:
    """Add an even margin, as of a page or a print.

    Args:
        image: RGB.
        width: Of the margin, as a share of the longer side.
        color: RGB of the margin.
    """
    return ImageOps.expand(image, max(1, round(width * max(image.size))), color)


def phone_screenshot(
    image: Image.Image, *, color: tuple[int, int, int] = (0, 0, 0), aspect: float = 19.5 / 9
) -> Image.Image:
    """Show the image on an upright phone's screen: as large as fits, bars around it, a status bar above.

    Args:
        image: RGB. It keeps its pixels: the screen is made to fit it.
        color: RGB of the bars.
        aspect: Height / width of the screen.
    """
    width = max(image.width, math.ceil(image.height / aspect))
    height = max(image.height, math.floor(width * aspect))
    screen = Image.new("RGB", (width, height), color)
    screen.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    _draw_status_bar(screen, (255, 255, 255) if sum(color) < 384 else (0, 0, 0))
    return screen


def _draw_status_bar(screen: Image.Image, ink: tuple[int, int, int]) -> None:
    """Draw a clock and a battery at the top, 2 % of the screen high."""
    size, draw = screen.height / 50, ImageDraw.Draw(screen)
    font = ImageFont.load_default(max(1, size))
    draw.text((2 * size, size), "9:41", fill=ink, font=font, anchor="lm")
    right, top = screen.width - 2 * size, 0.65 * size
    draw.rectangle((right - 1.5 * size, top, right, top + 0.7 * size), fill=ink)


def sticker(
    image: Image.Image,
    *,
    text: str = "so true",
    position: tuple[float, float] = (0.5, 0.1),
    width: float = 0.6,
    color: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """Cover a part with a line of text on a plain box.

    Args:
        image: RGB.
        text: One line.
        position: (x, y) of the box, each 0 to 1: (0, 0) is top left, (0.5, 0.5) the middle.
        width: Of the box, as a share of the image's, 0 < width ≤ 1. The text decides the height.
        color: RGB of the box; the text is black or white.
    """
    font = ImageFont.load_default(_STICKER_FONT_SIZE)
    _, _, right, bottom = font.getbbox(text)
    box = Image.new("RGB", (math.ceil(right) + _STICKER_FONT_SIZE, math.ceil(bottom) + 10), color)
    ink = (0, 0, 0) if sum(color) >= 384 else (255, 255, 255)
    ImageDraw.Draw(box).text((_STICKER_FONT_SIZE // 2, 5), text, fill=ink, font=font)
    scale = width * image.width / box.width
    size = max(1, round(box.width * scale)), min(image.height, max(1, round(box.height * scale)))
    result = image.copy()
    x, y = ((whole - own) * share for whole, own, share in zip(image.size, size, position, strict=True))
    result.paste(box.resize(size, Image.Resampling.LANCZOS), (round(x), round(y)))
    return result


def viewer_window(
    image: Image.Image, *, border: float = 0.08, color: tuple[int, int, int] = (32, 33, 36)
) -> Image.Image:
    """Draw the window of an image viewer around the image: a bar above, edges around.

    Args:
        image: RGB.
        border: Width of the edges, as a share of the longer side.
        color: RGB of the edges.
    """
    edge = max(1, round(border * max(image.size)))
    page = Image.new("RGB", (image.width + 2 * edge, image.height + 3 * edge), color)
    bar = tuple(min(255, channel + 28) for channel in color)
    page.paste(bar, (0, 0, page.width, edge))
    page.paste(image, (edge, 2 * edge))
    return page


def reduce_for_views(image: Image.Image, shrink_to: int | None) -> Image.Image:
    """Reduce a large image by a whole factor, so that its views cost less.

    Args:
        image: RGB. Formats other than JPEG are decoded at full size.
        shrink_to: As for `photos.decode`; the shorter side keeps at least twice as many pixels. None keeps
            the size.
    """
    factor = min(image.size) // (2 * shrink_to) if shrink_to else 1
    return image.reduce(factor) if factor > 1 else image


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
    ("screenshot", phone_screenshot),
)
"""Ten views by names that suit a file name; the first is the image itself."""
