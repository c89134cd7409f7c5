"""A reconstruction as one picture, for a file or a download."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image

from vitmae_search.errors import StorageError, display_path
from vitmae_search.records import Reconstruction

GAP = 8
"""Pixels between panels."""
SHORTEST = 256
"""Panels are enlarged by whole factors until they are at least this high, so that pixels stay square."""


def panels_image(made: Reconstruction) -> Image.Image:
    """Original, masked, reconstruction and pasted, left to right on white. RGB."""
    panels = (made.original, made.masked, made.reconstruction, made.pasted)
    factor = max(1, -(-SHORTEST // made.original.shape[0]))
    large = [np.kron(panel, np.ones((factor, factor, 1), np.uint8)) for panel in panels]
    height, width = large[0].shape[:2]
    sheet = np.full((height, 4 * width + 3 * GAP, 3), 255, np.uint8)
    for i, panel in enumerate(large):
        left = i * (width + GAP)
        sheet[:, left : left + width] = panel
    return Image.fromarray(sheet)


def panels_png(made: Reconstruction) -> bytes:
    """`panels_image` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    panels_image(made).save(buffer, "PNG")
    return buffer.getvalue()


def save_panels(made: Reconstruction, output: str | os.PathLike[str]) -> None:
    """Write `panels_image` as PNG. Raises `StorageError`."""
    try:
        with open(output, "wb") as file:
            file.write(panels_png(made))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {display_path(output)}: {reason}") from error
