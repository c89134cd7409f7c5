"""Figures and animations of a training run's film strip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitmae_search.errors import InspectionError
from vitmae_search.inspection.figures import picture_panels, show_picture
from vitmae_search.inspection.gif import encode_gif
from vitmae_search.records import FilmMoment, FilmStrip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 1.15
"""Inches of a picture in the figure."""
_SHORTEST = 192
"""Pixels of a picture in the animation, at least."""
_CAPTION, _GAP = 34, 8
_MILLISECONDS, _LAST_MILLISECONDS = 700, 2500


def loss_of_moment(moment: FilmMoment) -> tuple[str, str]:
    """The epoch of a moment, and the loss of the hidden patches, as text.

    Args:
        moment: Of a strip.
    """
    epoch = moment.epoch
    return (f"{epoch:.3g}" if epoch < 100 else f"{epoch:.0f}"), f"{moment.loss:.3f}"


def film_figure(strip: FilmStrip, *, guesses: bool = False) -> Figure:
    """A row for each photo: the photo, what the model saw, and what it made of that at each moment.

    Args:
        strip: With one moment or more.
        guesses: Show the model's guess of every patch, in place of the completed photo.

    Raises:
        InspectionError: There is no moment yet.
    """
    shown = _shown(strip, guesses)
    columns = [
        ("the photo", strip.originals),
        ("seen", strip.masked),
        *(("epoch {}\nloss {}".format(*loss_of_moment(moment)), pictures) for moment, pictures in shown),
    ]
    figure, axes = picture_panels(len(columns), len(strip.names), side=_SIDE)
    for number, (title, pictures) in enumerate(columns):
        for row, picture in enumerate(pictures):
            show_picture(axes[row * len(columns) + number], picture, "" if row else title)
    return figure


def film_animation(strip: FilmStrip, *, guesses: bool = False) -> list[Image.Image]:
    """A frame for each moment: what the model saw beside what it made of it, a row for each photo.

    Args:
        strip: With one moment or more.
        guesses: As of `film_figure`.

    Returns:
        RGB frames, of one size, with the epoch and the loss below the pictures.

    Raises:
        InspectionError: There is no moment yet.
    """
    font = ImageFont.load_default(16)
    frames = []
    for moment, pictures in _shown(strip, guesses):
        rows = [_beside(pair) for pair in zip(strip.originals, strip.masked, pictures, strict=True)]
        body = np.concatenate(rows)
        frame = Image.new("RGB", (body.shape[1], body.shape[0] + _CAPTION), "white")
        frame.paste(Image.fromarray(body), (0, 0))
        text = "epoch {}, loss {} of the hidden squares".format(*loss_of_moment(moment))
        ImageDraw.Draw(frame).text((_GAP, body.shape[0] + 6), text, "black", font)
        frames.append(frame)
    return frames


def film_gif(strip: FilmStrip, *, guesses: bool = False) -> bytes:
    """The frames of `film_animation` as a GIF, whose last frame stays for longer.

    Args:
        strip: With one moment or more.
        guesses: As of `film_figure`.

    Raises:
        InspectionError: There is no moment yet.
    """
    frames = film_animation(strip, guesses=guesses)
    return encode_gif(frames, [_MILLISECONDS] * (len(frames) - 1) + [_LAST_MILLISECONDS])


def _shown(strip: FilmStrip, guesses: bool) -> list[tuple[FilmMoment, NDArray[np.uint8]]]:
    if not strip.moments:
        raise InspectionError("The film strip has no picture yet.")
    return list(zip(strip.moments, strip.guesses if guesses else strip.completed, strict=True))


def _beside(pictures: tuple[NDArray[np.uint8], ...]) -> NDArray[np.uint8]:
    """Pictures beside each other and a gap below, enlarged by a whole factor."""
    height, width = pictures[0].shape[:2]
    factor = max(1, -(-_SHORTEST // min(height, width)))
    row = np.full((height * factor + _GAP, len(pictures) * (width * factor + _GAP) - _GAP, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        left = number * (width * factor + _GAP)
        large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        row[: height * factor, left : left + width * factor] = large
    return row
