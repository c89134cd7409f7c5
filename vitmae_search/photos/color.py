"""Convert every color mode that PIL knows to RGB, 8 bits a channel."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_SAME_COLOR = 4
_LEVELS = np.linspace(16, 240, 8, dtype=np.uint8)
_COLORS = Image.fromarray(np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), -1).reshape(8, 64, 3))
"""Colors all over the cube, to compare profiles by."""
_BITS_PER_SAMPLE = 258  # TIFF tag
_ROWS_AT_A_TIME = 256  # so that 250 megapixels need no gigabytes of floats


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a new RGB image with the values as they are stored: no color profile is applied.

    - RGB, L, 1, P, YCbCr, HSV: PIL's conversion. CMYK: PIL's, without a profile. LAB: through sRGB.
    - Any transparency (RGBA, LA, PA, a palette's, a transparent color): flattened onto white.
    - I;16 (16-bit gray): 0..65535 scaled to 0..255, not clipped; 12-bit TIFF from 0..4095.
    - I (32-bit): as 8-bit where all values lie in 0..255, as 16-bit where in 0..65535, otherwise the
      range from the lowest to the highest is stretched to 0..255.
    - F (float): 0..1 scaled to 0..255; 0..255 as it is; otherwise stretched. Values that are not finite
      become black.
    """
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_gray(image)).convert("RGB")
    if image.has_transparency_data:
        return _flatten_on_white(image)
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def is_wide_rgb(profile: bytes | None) -> bool:
    """Say whether `profile` is a readable ICC profile for RGB, other than sRGB.

    Its name decides nothing: it is sRGB if it means the same colors, to a few steps of 255.
    """
    return bool(profile) and _is_wide_rgb(profile)


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an RGB image in sRGB; itself where the profile cannot be read.

    Args:
        image: Values that `profile` gives their meaning.
        profile: An ICC profile for RGB.
    """
    try:
        own, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, own, srgb)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return image
    assert converted is not None
    converted.info = {}
    return converted


@lru_cache(maxsize=32)  # nearly all photos of a library have one of a few profiles
def _is_wide_rgb(profile: bytes) -> bool:
    try:
        if ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space != "RGB ":
            return False
    except (OSError, ValueError, TypeError):
        return False
    difference = np.asarray(to_srgb(_COLORS, profile)).astype(int) - np.asarray(_COLORS)
    return int(abs(difference).max()) > _SAME_COLOR


def _flatten_on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # PIL cannot convert premultiplied gray to RGBA directly
        image = image.convert("LA")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    page = Image.new("RGB", layer.size, "white")
    page.paste(layer, mask=layer)
    return page


def _to_gray(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W) uint8 from one channel of integers or floats."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        low, high = 0.0, 4095.0 if _bits_per_sample(image) == 12 else 65535.0
    else:
        low, high = _value_range(values, (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0))
    gray = np.empty(values.shape, np.uint8)
    scale = 255.0 / max(high - low, 1e-300)
    for top in range(0, len(values), _ROWS_AT_A_TIME):
        # float64, as the range of float32 values may exceed float32. Garbage values neither warn nor fail.
        with np.errstate(all="ignore"):
            block = (values[top : top + _ROWS_AT_A_TIME].astype(np.float64) - low) * scale
        block = np.nan_to_num(block, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        gray[top : top + _ROWS_AT_A_TIME] = np.rint(block.clip(0, 255))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return gray


def _value_range(values: NDArray[Any], usual_limits: tuple[float, float]) -> tuple[float, float]:
    """(0, the first of `usual_limits` that no value exceeds); or the lowest and the highest value."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.any():
            return 0.0, usual_limits[0]
        low = float(values.min(where=finite, initial=np.inf))
        high = float(values.max(where=finite, initial=-np.inf))
    else:
        low, high = float(values.min()), float(values.max())
    if low >= 0:
        for limit in usual_limits:
            if high <= limit:
                return 0.0, limit
    return low, high


def _bits_per_sample(image: Image.Image) -> int | None:
    tags = getattr(image, "tag_v2", None)
    bits = tags.get(_BITS_PER_SAMPLE) if tags is not None else None
    return bits[0] if isinstance(bits, tuple) and bits else None
