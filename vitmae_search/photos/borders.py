"""Uniform borders of an image: the bars of a screenshot, margins, frames, filled corners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 256
"""Longest side, in pixels, of the copy that is looked at; reducing also averages JPEG noise and thin text."""
_TOLERANCE = 12
"""Most levels, of 255, by which a channel may differ from the border's color."""
_UNIFORM = 0.95
"""Share of a line's pixels that must have the border's color."""
_TEXT = 0.5
"""The same for a line through text on the border."""
_TEXT_HEIGHT = 0.06
"""Most lines of text in a row, as a share of the side."""
_MIN_CUT = 0.03
"""Least that must be cut off, as a share of one side."""
_MIN_LEFT = 0.1
"""Least that must be left, as a share of each side."""
_MOST = 0.8
"""Share of the pixels that must be left for corners to be cut, too: within bars they are the photo's own."""
_MIN_MIDDLE = 0.6
"""Least that filled corners may leave, as a share of each side."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, as for `Image.crop`."""


def find_borders(image: Image.Image) -> Box | None:
    """The part of an image within its uniform borders.

    The image is reduced to 256 pixels on its longer side. The outermost line of each side gives a color, the
    median of its pixels. A line belongs to the border if 95 % of its pixels are within 12 of 255 levels of
    that color; so do up to 6 % of the side's lines in a row between such lines if half of their pixels are:
    they are text, such as a phone's status bar. All four sides are cut until none has a border, so that bars
    of several colors come off one after the other. If 80 % of the pixels or more are left, and all four
    corners have one color, as of a rounded frame or a tilted photo, the box shrinks towards its middle, to
    60 % of its sides at least, until one of them has another: what is left in the other corners harms less
    than to cut more off.

    Args:
        image: RGB.

    Returns:
        The box, or None: there is no border, or hardly anything would be left.
    """
    factor = max(1, -(-max(image.size) // _SIDE))
    pixels = np.asarray(image.reduce(factor) if factor > 1 else image).astype(np.int16)
    height, width = pixels.shape[:2]
    top, bottom, left, right = _cut_sides(pixels)
    if bottom - top < _MIN_LEFT * height or right - left < _MIN_LEFT * width:
        return None
    if (bottom - top) * (right - left) >= _MOST * height * width:
        top, bottom, left, right = _cut_corners(pixels, (top, bottom, left, right))
    if height - (bottom - top) < _MIN_CUT * height and width - (right - left) < _MIN_CUT * width:
        return None
    return left * factor, top * factor, min(right * factor, image.width), min(bottom * factor, image.height)


def _cut_sides(pixels: NDArray[np.int16]) -> Box:
    """(H, W, 3) to top, bottom, left and right of what lies within the borders."""
    top, bottom, left, right = 0, pixels.shape[0], 0, pixels.shape[1]
    while top < bottom and left < right:
        before = top, bottom, left, right
        rows = pixels[top:bottom, left:right]
        top, bottom = top + _depth(rows), bottom - _depth(rows[::-1])
        columns = pixels[top:bottom, left:right].swapaxes(0, 1)
        if columns.size:
            left, right = left + _depth(columns), right - _depth(columns[::-1])
        if before == (top, bottom, left, right):
            break
    return top, bottom, left, right


def _depth(lines: NDArray[np.int16]) -> int:
    """How many of the lines (n, m, 3), from the first on, are border."""
    color = np.median(lines[0], axis=0)
    if (np.abs(lines[0] - color).max(axis=1) <= _TOLERANCE).mean() < _UNIFORM:
        return 0
    share = (np.abs(lines - color).max(axis=2) <= _TOLERANCE).mean(axis=1)
    depth, gap = 0, max(1, round(_TEXT_HEIGHT * len(lines)))
    for i, own in enumerate(share):
        if own >= _UNIFORM:
            depth = i + 1
        elif own < _TEXT or i - depth >= gap:
            break
    return depth


def _cut_corners(pixels: NDArray[np.int16], sides: Box) -> Box:
    """Shrink towards the middle while all four corners have the color that the first one had."""
    top, bottom, left, right = sides
    color = pixels[top, left]
    for percent in range(100, round(100 * _MIN_MIDDLE) - 1, -2):
        dy, dx = (round((100 - percent) / 200 * side) for side in (bottom - top, right - left))
        box = top + dy, bottom - dy, left + dx, right - dx
        corners = pixels[[box[0], box[0], box[1] - 1, box[1] - 1], [box[2], box[3] - 1, box[2], box[3] - 1]]
        if not (np.abs(corners - color) <= _TOLERANCE).all():
            return box
    return sides
