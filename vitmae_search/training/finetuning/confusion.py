"""Which class is taken for which: counted, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_INK, _BLUE = (40, 40, 40), np.array((31, 98, 173), np.float64)
_NAMED = 60  # classes whose names fit
_COUNTED = 25  # classes whose cells have room for a number
_LONGEST = 24  # letters of a name


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """(classes, classes): how many photos of class i (row) were taken for class j (column)."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def draw_confusion(matrix: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Save the matrix as a PNG: a row a true class, the darker the greater a cell's share of its row."""
    count = len(names)
    cell = max(4, min(36, 900 // count))
    font = ImageFont.load_default(max(10, min(14, cell - 2)))
    shown = [_short(name) for name in names] if count <= _NAMED else []
    margin = 24 + int(max((font.getlength(name) for name in shown), default=0.0))
    side = margin + count * cell + 16
    image = Image.new("RGB", (max(side, 320), side + 24), "white")
    draw = ImageDraw.Draw(image)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for (i, j), share in np.ndenumerate(shares):
        box = (margin + j * cell, margin + i * cell, margin + (j + 1) * cell - 1, margin + (i + 1) * cell - 1)
        colour = (1 - share) * np.array((246.0, 246.0, 246.0)) + share * _BLUE
        draw.rectangle(box, fill=tuple(int(value) for value in colour))
        if count <= _COUNTED and matrix[i, j]:
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
    draw = ImageDraw.Draw(image)
    for i, name in enumerate(names):
        middle = margin + i * cell + cell // 2
        draw.text((margin - 6, middle), name, fill=_INK, font=font, anchor="rm")
        upright = Image.new("RGB", (margin - 8, cell), "white")
        ImageDraw.Draw(upright).text((0, cell / 2), name, fill=_INK, font=font, anchor="lm")
        image.paste(upright.rotate(90, expand=True), (margin + i * cell, 2))


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
