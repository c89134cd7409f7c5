"""A reconstruction as one picture: the completed photo, large, and the raw panels beside it.

The same for a file, a download and Python. A training run's plots use `compose_sheet` alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitmae_search.errors import StorageError, display_path
from vitmae_search.photos.error_map import error_map
from vitmae_search.photos.seams import soften_seams
from vitmae_search.records import Reconstruction

Panel = NDArray[np.uint8]
"""(H, W, 3) RGB."""

SHORTEST = 256
"""Raw panels are enlarged until their shorter side has at least so many pixels."""
GAP, TITLE_HEIGHT = 12, 30
"""Pixels between the panels and round them, and of the title above each."""
WIDEST = 1.5
"""The completed photo is at most so many times as wide as the room for it is high."""
MIN_LARGE_WIDTH = 440
"""Pixels that the completed photo's title needs."""


def reconstruction_sheet(made: Reconstruction, *, soften: bool = True) -> Image.Image:
    """The completed photo, and beside it in two rows what the model saw, the original, the guess, the errors.

    Args:
        made: What `Library.reconstruct` returned.
        soften: Smooth the steps between neighbouring guesses in the completed photo (`soften_seams`); its
            title says so. The other panels are always raw.

    Returns:
        RGB, on white. Only the completed photo is enlarged smoothly.
    """
    raw = [(title, Image.fromarray(enlarge(panel))) for title, panel in raw_panels(made)]
    width, height = raw[0][1].size
    sheet_height = GAP + 2 * (TITLE_HEIGHT + height) + GAP
    large = completed_photo(made, height=sheet_height - 2 * GAP - TITLE_HEIGHT, soften=soften)
    left = GAP + max(large.width, MIN_LARGE_WIDTH) + GAP
    sheet = Image.new("RGB", (left + 2 * (width + GAP), sheet_height), "white")
    _place(sheet, completed_title(made, soften=soften), large, (GAP, GAP))
    for number, (title, panel) in enumerate(raw):
        row, column = divmod(number, 2)
        _place(sheet, title, panel, (left + column * (width + GAP), GAP + row * (TITLE_HEIGHT + height)))
    return sheet


def reconstruction_sheets(made: Mapping[str, Reconstruction], *, soften: bool = True) -> Image.Image:
    """Several models' reconstructions of one picture, a sheet each, one below the other, with their names.

    Args:
        made: By each model, under its name.
        soften: As of `reconstruction_sheet`.
    """
    sheets = {name: reconstruction_sheet(each, soften=soften) for name, each in made.items()}
    width = max(sheet.width for sheet in sheets.values())
    height = sum(TITLE_HEIGHT + sheet.height for sheet in sheets.values())
    whole, y = Image.new("RGB", (width, height + GAP), "white"), GAP
    for name, sheet in sheets.items():
        off = made[name].level_error
        title = display_path(name) + ("" if off is None else f": off by {off:.1f} of 255 levels")
        _place(whole, title, sheet, (GAP, y))
        y += TITLE_HEIGHT + sheet.height
    return whole


def completed_title(made: Reconstruction, *, soften: bool) -> str:
    """What the completed photo shows.

    Args:
        made: The reconstruction.
        soften: Whether its seams were softened.
    """
    hidden = int(made.mask.sum())
    seams = "; seams between guesses softened" if soften and hidden else ""
    return f"{hidden} of {made.mask.size} squares guessed{seams}"


def completed_photo(made: Reconstruction, *, height: int, soften: bool = True) -> Image.Image:
    """The photo with the guessed patches in place, in the photo's own shape, enlarged smoothly. RGB.

    Args:
        made: What `Library.reconstruct` returned.
        height: Of the result, in pixels. Where that makes it wider than `WIDEST` times as much, it is lower.
        soften: Smooth the steps between neighbouring guesses (`soften_seams`).
    """
    picture = Image.fromarray(soften_seams(made) if soften else made.pasted)
    rows, columns = made.photo_shape or (picture.height, picture.width)
    scale = min(height / rows, WIDEST * height / columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC)


def raw_panels(made: Reconstruction) -> list[tuple[str, Panel]]:
    """Title and pixels of what the model saw, the original, its guess of all patches, and their errors."""
    return [
        ("What the model saw", made.masked),
        ("Original", made.original),
        ("All squares guessed", made.reconstruction),
        ("Error of each square", error_map(made)),
    ]


def _place(sheet: Image.Image, title: str, picture: Image.Image, corner: tuple[int, int]) -> None:
    """Put a picture on a sheet, with its title above it."""
    x, y = corner
    ImageDraw.Draw(sheet).text((x, y + 3), title, fill="black", font=ImageFont.load_default(16))
    sheet.paste(picture, (x if picture.width + x <= sheet.width else 0, y + TITLE_HEIGHT))


def compose_sheet(rows: Sequence[Sequence[Panel]], *, gap: int, margin: int = 0) -> Image.Image:
    """Put panels on a white sheet, in rows and columns.

    Args:
        rows: The panels of each row, left to right, (H, W, 3) uint8, all of one size.
        gap: Pixels between neighbouring panels.
        margin: Pixels round all panels.

    Returns:
        The sheet, RGB.
    """
    height, width, _ = rows[0][0].shape
    shape = (
        margin + len(rows) * (height + gap) - gap + margin,
        margin + len(rows[0]) * (width + gap) - gap + margin,
        3,
    )
    sheet = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            y, x = margin + i * (height + gap), margin + j * (width + gap)
            sheet[y : y + height, x : x + width] = panel
    return Image.fromarray(sheet)


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


def save_reconstruction(
    made: Reconstruction | Mapping[str, Reconstruction],
    output: str | os.PathLike[str],
    *,
    soften: bool = True,
) -> None:
    """Write `reconstruction_sheet` as a PNG file.

    Args:
        made: What `Library.reconstruct` returned; or that of several models, under their names, for
            `reconstruction_sheets`.
        output: The file; one that is there is replaced.
        soften: As of `reconstruction_sheet`.

    Raises:
        StorageError: It cannot be written.
    """
    if isinstance(made, Reconstruction):
        data = encode_png(reconstruction_sheet(made, soften=soften))
    else:
        data = encode_png(reconstruction_sheets(made, soften=soften))
    try:
        with open(output, "wb") as file:
            file.write(data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {display_path(output)}: {reason}") from error
