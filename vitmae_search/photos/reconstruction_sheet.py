"""Reconstructions as one picture: panels side by side, for a file, a download or a training run's folder."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitmae_search.errors import StorageError, display_path
from vitmae_search.records import Reconstruction

Panel = NDArray[np.uint8]
"""(H, W, 3) RGB."""

SHORTEST = 256
"""Panels are enlarged until their shorter side has at least so many pixels."""
GAP = 8
"""Pixels between the panels of `reconstruction_sheet`."""
TITLED_GAP, TITLE_HEIGHT = 12, 30
"""Pixels round the panels of `titled_sheet`, and of the line of titles above them."""


def compose_sheet(rows: Sequence[Sequence[Panel]], *, gap: int, margin: int = 0, top: int = 0) -> Image.Image:
    """Put panels on a white sheet, in rows and columns.

    Args:
        rows: The panels of each row, left to right, (H, W, 3) uint8, all of one size.
        gap: Pixels between neighbouring panels.
        margin: Pixels round all panels.
        top: Pixels above them in place of `margin`, if that is more.

    Returns:
        The sheet, RGB.
    """
    height, width, _ = rows[0][0].shape
    above = max(top, margin)
    shape = (
        above + len(rows) * (height + gap) - gap + margin,
        margin + len(rows[0]) * (width + gap) - gap + margin,
        3,
    )
    sheet = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            y, x = above + i * (height + gap), margin + j * (width + gap)
            sheet[y : y + height, x : x + width] = panel
    return Image.fromarray(sheet)


def reconstruction_sheet(made: Reconstruction) -> Image.Image:
    """Original, masked, reconstruction and pasted, left to right on white. RGB."""
    panels = (made.original, made.masked, made.reconstruction, made.pasted)
    return compose_sheet([[enlarge(panel) for panel in panels]], gap=GAP)


def titled_sheet(panels: Sequence[tuple[str, Panel]]) -> Image.Image:
    """Titled panels of one size, left to right on white. RGB."""
    large = [enlarge(panel) for _, panel in panels]
    sheet = compose_sheet([large], gap=TITLED_GAP, margin=TITLED_GAP, top=TITLE_HEIGHT)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, (title, _) in enumerate(panels):
        left = TITLED_GAP + column * (large[0].shape[1] + TITLED_GAP)
        draw.text((left, 7), title, fill="black", font=font)
    return sheet


def enlarge(panel: Panel, shortest: int = SHORTEST) -> Panel:
    """Repeat pixels by a whole factor, so that each stays a square.

    Args:
        panel: (H, W, 3) uint8.
        shortest: Least length of the result's shorter side, in pixels.
    """
    return zoom(panel, max(1, -(-shortest // min(panel.shape[:2]))))


def zoom(panel: Panel, factor: int) -> Panel:
    """Repeat each pixel `factor` times in both directions.

    Args:
        panel: (H, W, 3) uint8.
        factor: 1 or more.
    """
    return panel.repeat(factor, axis=0).repeat(factor, axis=1)


def encode_png(image: Image.Image | Panel) -> bytes:
    """An image, or (H, W, 3) uint8 pixels, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_reconstruction(made: Reconstruction, output: str | os.PathLike[str]) -> None:
    """Write `reconstruction_sheet` as a PNG file.

    Args:
        made: What `Library.reconstruct` returned.
        output: The file; one that is there is replaced.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        with open(output, "wb") as file:
            file.write(encode_png(reconstruction_sheet(made)))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {display_path(output)}: {reason}") from error
