"""The film strip of a run: the same photos, reconstructed again and again while the model learns.

In the run's folder, `film/` has the photos and what is hidden of them, a picture for each moment, and the
numbers as JSON lines. `training_runs.film_strip` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import TrainingError, display_path
from vitmae_search.photos.square_photos import decode_square
from vitmae_search.records import FilmMoment
from vitmae_search.training.log import JsonLinesLog
from vitmae_search.training.pretraining.options import FILM_PHOTOS, PretrainOptions
from vitmae_search.training.pretraining.photo_source import Photos
from vitmae_search.training_runs.film_strip import (
    FILM_FOLDER,
    MOMENTS_FILE,
    PHOTOS_FILE,
    PHOTOS_PICTURE,
    FilmPhotos,
    picture_name,
    read_film_photos,
)
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining, reconstruct

_EVEN_MOMENTS = 16

NamedPicture = tuple[str, NDArray[np.uint8]]
"""What a photo is called, and (H, W, 3) uint8."""


class FilmStripWriter:
    """Writes the film strip of a run. The photos are chosen once, whatever becomes of their files.

    Args:
        run_folder: The run's folder.
        photos: The training data.
        processor: The model's image processor.
        side: Of the model's square pictures, in pixels.
        options: When to reconstruct, and photos of the person's own.

    Raises:
        TrainingError: A photo of the person's own cannot be read.
    """

    def __init__(
        self,
        run_folder: Path,
        photos: Photos,
        processor: ViTImageProcessor,
        side: int,
        options: PretrainOptions,
    ) -> None:
        self._folder = run_folder / FILM_FOLDER
        self._processor, self._film = processor, options.film
        self._moments = JsonLinesLog(self._folder / MOMENTS_FILE, FilmMoment)
        self._begun = read_film_photos(run_folder)
        chosen = [] if self._begun else _choose_photos(photos, options.film_photos, side)
        self._chosen: list[NamedPicture] = chosen
        self._last_step: int | None = None
        self._even_moment = -1

    def go_on(self, step: int, progress: float) -> None:
        """Continue where the run is; moments after it come again.

        Args:
            step: Steps done.
            progress: How far the training is, 0 to 1.
        """
        if not self._folder.is_dir():
            return
        self._moments.truncate(-1 if self._begun is None else step)
        moments = self._moments.read()
        if moments:
            self._last_step, self._even_moment = moments[-1].step, int(progress * _EVEN_MOMENTS)

    def is_due(self, step: int, progress: float) -> bool:
        """Whether the photos are reconstructed now.

        Args:
            step: Steps done.
            progress: How far the training is, 0 to 1.
        """
        if step == self._last_step:
            return False
        if self._film == "log":
            power_of_two = step & (step - 1) == 0  # 0 too
            return power_of_two or progress >= 1
        before, self._even_moment = self._even_moment, int(progress * _EVEN_MOMENTS)
        return self._even_moment > before

    def add(self, model: ViTMAEForPreTraining, step: int, epoch: float) -> None:
        """Reconstruct the photos, and add the moment to the strip.

        Args:
            model: The model as the checkpoint would have it.
            step: Steps done.
            epoch: Passes over the photos.
        """
        if self._begun is None:
            pictures = [picture for _, picture in self._chosen]
            made = [
                reconstruct(model, self._processor, picture, mask_ratio=model.config.mask_ratio, seed=seed)
                for seed, picture in enumerate(pictures)
            ]
            self._begin(np.stack([each.mask for each in made]))
        else:
            originals, masks = self._begun.originals, self._begun.masks
            made = [
                reconstruct(model, self._processor, picture, mask=mask)
                for picture, mask in zip(originals, masks, strict=True)
            ]
        losses = tuple(round(each.loss or 0.0, 6) for each in made)
        _write_png(self._folder / picture_name(step), np.concatenate([each.reconstruction for each in made]))
        self._moments.append(FilmMoment(step, round(epoch, 4), losses))
        self._last_step = step

    def _begin(self, masks: NDArray[np.bool_]) -> None:
        """Write which photos there are."""
        self._folder.mkdir(exist_ok=True)
        names = tuple(name for name, _ in self._chosen)
        originals = np.stack([picture for _, picture in self._chosen])
        _write_png(self._folder / PHOTOS_PICTURE, np.concatenate(originals))
        with write_atomically(self._folder / PHOTOS_FILE, durable=False) as stream:
            stream.write(json.dumps({"names": names, "masks": masks.astype(int).tolist()}).encode())
        self._begun, self._chosen = FilmPhotos(names, originals, masks), []


def _choose_photos(photos: Photos, named: Sequence[str], side: int) -> list[NamedPicture]:
    """The person's own photos, and of those that the run learns from as many as are missing, far apart."""
    chosen: list[NamedPicture] = []
    for path in named:
        picture = decode_square(path, side)
        if isinstance(picture, str):
            raise TrainingError(f"{display_path(path)} cannot be in the film strip: {picture}")
        chosen.append((display_path(Path(path).name), picture))
    missing = FILM_PHOTOS - len(chosen)
    rows = np.unique(np.linspace(0, len(photos) - 1, missing).astype(int)) if missing else ()
    return [*chosen, *(("", _resized(photos.image(int(row)), side)) for row in rows)]


def _resized(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    with write_atomically(path, durable=False) as stream:
        Image.fromarray(picture).save(stream, "PNG")
