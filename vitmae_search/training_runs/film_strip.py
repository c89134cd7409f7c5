"""The film strip of a training run, read from its folder: reconstructions over the epochs."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.errors import TrainingError, display_path
from vitmae_search.records import FilmMoment, FilmStrip

FILM_FOLDER: Final = "film"
PHOTOS_FILE: Final = "photos.json"
PHOTOS_PICTURE: Final = "photos.png"
MOMENTS_FILE: Final = "moments.jsonl"

_MAX_PHOTOS, _MAX_SIDE, _MAX_MOMENTS = 16, 2048, 256
"""Of what is read: a run's folder may come from anywhere."""
_MAX_PIXELS = 1 << 26
"""Of all moments together: 334 of four photos of 224 × 224."""


@dataclass(frozen=True, slots=True, eq=False)
class FilmPhotos:
    """The photos of a strip, as `FilmStrip` has them."""

    names: tuple[str, ...]
    originals: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def picture_name(step: int) -> str:
    """The file of a moment's picture: the guesses of all photos, one below the other."""
    return f"{step:09d}.png"


def read_film_strip(run_folder: str | os.PathLike[str]) -> FilmStrip:
    """Read the film strip of a run, which may go on at the same time; moments half-written are skipped.

    Args:
        run_folder: The run's folder.

    Raises:
        TrainingError: There is none.
    """
    photos = read_film_photos(run_folder)
    if photos is None:
        raise TrainingError(
            f"{display_path(run_folder)} has no film strip: `pretrain` keeps one of the runs that it starts "
            "or goes on with, unless --film none"
        )
    shape = photos.originals.shape
    most = max(_MAX_PIXELS // math.prod(shape[:3]), 1)
    moments, guesses = [], []
    for moment in _read_moments(Path(run_folder) / FILM_FOLDER / MOMENTS_FILE, len(photos.names), most):
        picture = _read_picture(Path(run_folder) / FILM_FOLDER / picture_name(moment.step), shape[0])
        if picture is not None and picture.shape == shape:
            moments.append(moment)
            guesses.append(picture)
    found = np.stack(guesses) if guesses else np.empty((0, *shape), np.uint8)
    return FilmStrip(photos.names, photos.originals, photos.masks, tuple(moments), found)


def read_film_photos(run_folder: str | os.PathLike[str]) -> FilmPhotos | None:
    """The photos of a run's strip; None where there is no strip, or it is damaged.

    Args:
        run_folder: The run's folder.
    """
    folder = Path(run_folder) / FILM_FOLDER
    try:
        described = json.loads((folder / PHOTOS_FILE).read_bytes())
        names = tuple(str(name) for name in described["names"])
        masks = np.array(described["masks"], dtype=bool)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not 0 < len(names) <= _MAX_PHOTOS or masks.ndim != 3 or len(masks) != len(names):
        return None
    originals = _read_picture(folder / PHOTOS_PICTURE, len(names))
    if originals is None or any(
        not patches or pixels % patches
        for pixels, patches in zip(originals.shape[1:3], masks.shape[1:], strict=True)
    ):
        return None
    return FilmPhotos(names, originals, masks)


def _read_moments(path: Path, photos: int, most: int) -> list[FilmMoment]:
    """The moments in a file; where there are too many, as many as may be, from the first to the last."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    moments: dict[int, FilmMoment] = {}
    for line in lines[:_MAX_MOMENTS]:
        try:
            values = json.loads(line)
            losses = tuple(float(loss) for loss in values["losses"])
            moment = FilmMoment(int(values["step"]), float(values["epoch"]), losses)
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if len(losses) == photos and moment.step >= 0 and np.isfinite([moment.epoch, *losses]).all():
            moments[moment.step] = moment
    steps = sorted(moments)
    kept = np.unique(np.linspace(len(steps) - 1, 0, min(most, len(steps))).astype(int))
    return [moments[steps[number]] for number in kept]


def _read_picture(path: Path, photos: int) -> NDArray[np.uint8] | None:
    """(photos, H, W, 3) of a picture that has them one below the other."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            width, height = image.size
            if width > _MAX_SIDE or height > photos * _MAX_SIDE or height % photos:
                return None
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return pixels.reshape(photos, height // photos, width, 3)
