"""The confusion matrix of a classifier, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_INK, _BLUE = (40, 40, 40), np.array((31, 98, 173), np.float64)
_MAX_NAMED_CLASSES = 60
"""With more classes their names do not fit."""
_MAX_NUMBERED_CLASSES = 25
"""With more classes the cells have no room for a number."""
_MAX_NAME_LENGTH = 24


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Count predictions by true class.

    Args:
        labels: (N,), the true classes.
        predicted: (N,), the predicted classes.
        classes: Number of classes.

    Returns:
        (classes, classes): photos of class i (row) that were classified as j (column).
    """
    pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def draw_confusion(matrix: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix; the darker a cell, the greater its share of its row.

    Args:
        matrix: As of `confusion_matrix`.
        names: The classes.
        path: PNG file to write.
    """
    count = len(names)
    cell = max(4, min(36, 900 // count))
    font = ImageFont.load_default(max(10, min(14, cell - 2)))
    shown = [_shorten(name) for name in names] if count <= _MAX_NAMED_CLASSES else []
    margin = 24 + int(max((font.getlength(name) for name in shown), default=0.0))
    side = margin + count * cell + 16
    image = Image.new("RGB", (max(side, 320), side + 24), "white")
    draw = ImageDraw.Draw(image)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for (i, j), share in np.ndenumerate(shares):
        box = (margin + j * cell, margin + i * cell, margin + (j + 1) * cell - 1, margin + (i + 1) * cell - 1)
        color = (1 - share) * np.array((246.0, 246.0, 246.0)) + share * _BLUE
        draw.rectangle(box, fill=tuple(int(value) for value in color))
        if count <= _MAX_NUMBERED_CLASSES and matrix[i, j]:
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            ink = "white" if share > 0.5 else _INK
            draw.text(middle, str(matrix[i, j]), fill=ink, font=font, anchor="mm")
    _draw_names(image, shown, margin, cell, font)
    draw.text((8, side + 4), "rows: true class, columns: predicted", fill=_INK, font=font)
    image.save(path, format="PNG", optimize=True)


def _draw_names(
    image: Image.Image,
    names: Sequence[str],
    margin: int,
    cell: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write the names beside the rows, and rotated above the columns."""
    draw = ImageDraw.Draw(image)
    for i, name in enumerate(names):
        middle = margin + i * cell + cell // 2
        draw.text((margin - 6, middle), name, fill=_INK, font=font, anchor="rm")
        horizontal = Image.new("RGB", (margin - 8, cell), "white")
        ImageDraw.Draw(horizontal).text((0, cell / 2), name, fill=_INK, font=font, anchor="lm")
        image.paste(horizontal.rotate(90, expand=True), (margin + i * cell, 2))


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_NAME_LENGTH else name[: _MAX_NAME_LENGTH - 1] + "…"
