"""From every colour mode that PIL knows to RGB, 8 bits a channel."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_BITS_PER_SAMPLE = 258  # TIFF tag
_ROWS = 256  # scaled at a time, so that 250 megapixels need no gigabytes of floats


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` as a new RGB image, with the values as they are stored, no colour profile applied.

    - RGB, L, 1, P, YCbCr, HSV: PIL's conversion. CMYK: PIL's, without a profile. LAB: through sRGB.
    - Any transparency (RGBA, LA, PA, a palette's, a transparent colour): flattened onto white.
    - I;16 (16-bit grey): 0..65535 scaled to 0..255, not clipped; 12-bit TIFF from 0..4095.
    - I (32-bit): as 8-bit where all values lie in 0..255, as 16-bit where in 0..65535, otherwise the
      range from the lowest to the highest is stretched to 0..255.
    - F (float): 0..1 scaled to 0..255; 0..255 as it is; otherwise stretched. What is not finite is black.
    """
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def is_wide_rgb(profile: bytes | None) -> bool:
    """Whether `profile` is a readable ICC profile for RGB, other than sRGB."""
    if not profile:
        return False
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile)).profile
        description = opened.profile_description or ""
    except (OSError, ValueError, TypeError):
        return False
    return opened.xcolor_space == "RGB " and "srgb" not in description.lower()


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # PIL has no direct way from premultiplied grey to RGBA
        image = image.convert("LA")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    page = Image.new("RGB", layer.size, "white")
    page.paste(layer, mask=layer)
    return page


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W) uint8 from one channel of integers or floats."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        low, high = 0.0, 4095.0 if _bits(image) == 12 else 65535.0
    else:
        low, high = _range(values, (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0))
    grey = np.empty(values.shape, np.uint8)
    scale = 255.0 / max(high - low, 1e-300)
    for top in range(0, len(values), _ROWS):
        # float64: the span of float32 values may exceed float32. Garbage is no reason to warn or fail.
        with np.errstate(all="ignore"):
            block = (values[top : top + _ROWS].astype(np.float64) - low) * scale
        block = np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        grey[top : top + _ROWS] = np.rint(block.clip(0, 255))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def _range(values: NDArray[Any], usual: tuple[float, float]) -> tuple[float, float]:
    """The lowest and highest value: (0, the first of `usual` that holds them), or what is there."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.any():
            return 0.0, usual[0]
        low = float(values.min(where=finite, initial=np.inf))
        high = float(values.max(where=finite, initial=-np.inf))
    else:
        low, high = float(values.min()), float(values.max())
    if low >= 0:
        for limit in usual:
            if high <= limit:
                return 0.0, limit
    return low, high


def _bits(image: Image.Image) -> int | None:
    tags = getattr(image, "tag_v2", None)
    bits = tags.get(_BITS_PER_SAMPLE) if tags is not None else None
    return bits[0] if isinstance(bits, tuple) and bits else None
