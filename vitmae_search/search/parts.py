"""Whether a picture is a part of a photo: small grey copies are compared pixel by pixel.

The vector of a small part says little of the whole photo, which usually is among the first hundred hits all
the same. Template matching by normalised cross-correlation, at several scales, finds it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SIMILAR = 0.65
"""Least correlation of the details of a part with those of its place in the photo."""
_COARSE, _FINE = 64, 192
"""Longer side, in pixels, of the copies that are compared: of all candidates, and of the best few."""
_FEW = 3
_SHARES = tuple(0.22 * 1.16**i for i in range(10))
"""Longer sides of the part that are tried, as shares of the photo's: 22 to 84 %."""
_FINE_STEPS = tuple(np.linspace(0.92, 1.08, 11).tolist())
_MIN_CONTRAST, _MIN_DETAIL = 8.0, 1.0
"""Least standard deviation, in levels of 255, of a part and of its details; less fits anywhere."""

_Grey = NDArray[np.float32]
"""A small grey copy, (h, w)."""


def find_whole(part: Image.Image, photos: Sequence[bytes]) -> tuple[int, float] | None:
    """The photo that a picture is a part of.

    All candidates are compared at 64 pixels. The best three are compared at 192, by their details alone (less
    a Gaussian blur of 2 pixels): soft backgrounds fit each other too well.

    Args:
        part: RGB.
        photos: Candidates as JPEG files, at least 192 pixels on the longer side.

    Returns:
        Its number and the correlation, 0 to 1, of the part's details with those of its place there; None
        where none fits.
    """
    if not photos:
        return None
    copies = [_jpeg_copy(photo, _COARSE) for photo in photos]
    templates = [(share, _grey_copy(part, round(share * _COARSE))) for share in _SHARES]
    coarse, shares = correlations(templates, copies, _COARSE, _MIN_CONTRAST)
    best: tuple[int, float] | None = None
    for i in np.argsort(-coarse)[:_FEW].tolist():
        near = [float(shares[i]) * step for step in _FINE_STEPS]
        templates = [(share, _details(_grey_copy(part, round(share * _FINE)))) for share in near]
        fine, _ = correlations(templates, [_details(_jpeg_copy(photos[i], _FINE))], _FINE, _MIN_DETAIL)
        if fine[0] >= SIMILAR and (best is None or fine[0] > best[1]):
            best = i, float(fine[0])
    return best


def correlations(
    templates: Sequence[tuple[float, _Grey]], photos: Sequence[_Grey], side: int, min_contrast: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The best normalised cross-correlation of any template with any place of each photo.

    Args:
        templates: Sizes of the picture, as shares of the photo's longer side, and copies of it of that size.
        photos: n copies.
        side: Their longer side in pixels.
        min_contrast: A template with a smaller standard deviation is left out, and places with half of it
            count as if they had that.

    Returns:
        (n,) from -1 to 1, -1 where none fits; and the share, (n,), at which it is reached.
    """
    best, at = np.full(len(photos), -1.0, np.float32), np.full(len(photos), templates[0][0])
    padded = np.zeros((len(photos), side, side), np.float32)
    for row, photo in zip(padded, photos, strict=True):
        row[: photo.shape[0], : photo.shape[1]] = photo
    sizes = np.array([photo.shape for photo in photos])
    spectra = np.fft.rfft2(padded)
    sums, squares = _integral(padded), _integral(padded**2)
    for share, template in templates:
        height, width = template.shape
        centred = template - template.mean()
        if min(height, width) < 4 or max(height, width) > side or centred.std() < min_contrast:
            continue
        products = np.fft.irfft2(spectra * np.fft.rfft2(centred, s=(side, side)).conj(), s=(side, side))
        products = products[:, : side - height + 1, : side - width + 1]
        count = height * width
        variance = _windows(squares, height, width) - _windows(sums, height, width) ** 2 / count
        variance = np.maximum(variance, count * (min_contrast / 2) ** 2)
        correlation = products / np.sqrt(variance * (centred**2).sum())
        rows, columns = np.arange(side - height + 1)[:, None], np.arange(side - width + 1)
        last_row, last_column = (sizes - (height, width)).T[:, :, None, None]
        inside = (rows <= last_row) & (columns <= last_column)
        found = np.where(inside, correlation, -1).max(axis=(1, 2))
        at = np.where(found > best, share, at)
        best = np.maximum(best, found).astype(np.float32)
    return best, at


def _grey_copy(image: Image.Image, side: int) -> _Grey:
    """A grey copy with this longer side, of levels of 255."""
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), np.float32)


def _jpeg_copy(data: bytes, side: int) -> _Grey:
    with Image.open(BytesIO(data), formats=["JPEG"]) as image:
        image.draft("L", (side, side))
        return _grey_copy(image, side)


def _details(copy: _Grey) -> _Grey:
    image = Image.fromarray(copy.astype(np.uint8))
    return copy - np.asarray(image.filter(ImageFilter.GaussianBlur(2)), np.float32)


def _integral(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, h, w) to (n, h + 1, w + 1): the sums over everything above and to the left."""
    sums = images.astype(np.float64).cumsum(axis=1).cumsum(axis=2)
    return np.pad(sums, ((0, 0), (1, 0), (1, 0)))


def _windows(integral: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """The sum over each window of this size, by its top left corner."""
    below, right = slice(height, None), slice(width, None)
    above, left = slice(None, -height), slice(None, -width)
    result: NDArray[np.float64] = (
        integral[:, below, right]
        - integral[:, above, right]
        - integral[:, below, left]
        + integral[:, above, left]
    )
    return result
