"""The latest reconstructions, shared by the page, its script's requests, and downloads.

A picture is decoded once: what the model made of it at its own size is what it is given from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from vitmae_search.inspection import series
from vitmae_search.inspection.masks import Mask, fit_mask, pattern_mask
from vitmae_search.latest_values import LatestValues
from vitmae_search.mask_patterns import PATTERNS
from vitmae_search.records import Reconstruction
from vitmae_search.web.components.inspections import key_of_model
from vitmae_search.web.components.mask_parameters import MaskParameters
from vitmae_search.web.server.session import library

KEPT_BYTES = 64 << 20
"""What all pictures, and all reconstructions, may take: 1,300 of the bundled model's, 100 of a ViT-B/16's."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPicture:
    """A picture, ready for a model.

    Attributes:
        key: Names the picture and the model.
        source: What `Library.reconstruct` takes: the picture at the model's size, where that changes nothing.
        photo_shape: The photo's own height and width.
        original: (H, W, 3) uint8, the picture at the model's size.
        grid: Rows and columns of the model's patches.
        model: Another model than the library's; None is the library's.
        on_made: Called after each reconstruction.
    """

    key: tuple[Hashable, ...]
    source: int | bytes | Image.Image
    photo_shape: tuple[int, int] | None
    original: np.ndarray[Any, np.dtype[np.uint8]]
    grid: tuple[int, int]
    model: str | None = None
    on_made: Callable[[], None] = lambda: None

    def reconstruct(self, **options: Any) -> Reconstruction:
        """As `Library.reconstruct`, of this picture."""
        return replace(self._made(self.source, options), photo_shape=self.photo_shape)

    def reconstruct_image(self, image: Image.Image, **options: Any) -> Reconstruction:
        """As `Library.reconstruct`, of any picture, by the same model.

        Args:
            image: The picture.
            options: Which patches are hidden.
        """
        return self._made(image, options)

    def _made(self, picture: int | bytes | Image.Image, options: dict[str, Any]) -> Reconstruction:
        made = library().reconstruct(picture, model=self.model, **options)
        self.on_made()
        return made


def _picture_bytes(picture: PreparedPicture) -> int:
    source = picture.source
    if isinstance(source, Image.Image):
        return picture.original.nbytes + source.width * source.height * len(source.getbands())
    return picture.original.nbytes + (len(source) if isinstance(source, bytes) else 0)


def _reconstruction_bytes(made: Reconstruction) -> int:
    pictures = (made.original, made.masked, made.reconstruction, made.pasted)
    return sum(each.nbytes for each in (*pictures, made.mask, made.error))


_pictures: LatestValues[Hashable, PreparedPicture] = LatestValues(_picture_bytes, KEPT_BYTES)
_reconstructions: LatestValues[Hashable, Reconstruction] = LatestValues(_reconstruction_bytes, KEPT_BYTES)


def prepared_picture(key: str, picture: int | bytes, model: str | None = None) -> PreparedPicture:
    """A picture ready for a model, from the cache where it is there.

    Args:
        key: Names the picture's content.
        picture: A photo's id, or a file's bytes.
        model: Another model than the library's.
    """
    whole = (key, *key_of_model(model))
    return _pictures.get_or_compute(whole, lambda: _prepare(whole, picture, model))


def _prepare(key: tuple[Hashable, ...], picture: int | bytes, model: str | None) -> PreparedPicture:
    made = library().reconstruct(picture, model=model)
    small = PreparedPicture(
        key, Image.fromarray(made.original), made.photo_shape, made.original, made.mask.shape, model
    )
    again = small.reconstruct()
    # A model that cuts out a part of what it is given would cut out a part of the part.
    same = np.array_equal(again.original, made.original)
    return small if same else replace(small, source=picture)


def reconstruct(picture: PreparedPicture, asked: MaskParameters) -> Reconstruction:
    """The reconstruction that an address asks for, from the cache where it is there.

    Args:
        picture: The picture.
        asked: Which patches are hidden.
    """
    mask = painted_mask(picture, asked)
    if mask is None and asked.pattern != PATTERNS[0]:
        mask = pattern_mask(asked.pattern, picture.grid, asked.ratio, asked.seed)
    options: dict[str, Any] = (
        {"mask_ratio": asked.ratio, "seed": asked.seed} if mask is None else {"mask": mask}
    )
    which = (asked.ratio, asked.seed) if mask is None else mask.tobytes()
    return _reconstructions.get_or_compute((*picture.key, which), lambda: picture.reconstruct(**options))


def painted_mask(picture: PreparedPicture, asked: MaskParameters) -> Mask | None:
    """What a visitor painted, in the model's patches; None where nobody painted.

    Args:
        picture: The picture, ready for the model.
        asked: Which patches are hidden.
    """
    return None if asked.painted is None else fit_mask(asked.painted, picture.grid)


def sweep(picture: PreparedPicture, asked: MaskParameters) -> list[Reconstruction]:
    """Reconstructions with ever more hidden: what was painted first, or in the pattern of the address.

    Args:
        picture: The picture.
        asked: Which patches are hidden.
    """
    many = series.in_pattern(picture.reconstruct, asked.pattern, picture.grid)
    return series.ratio_sweep(many, seed=asked.seed, mask=painted_mask(picture, asked))
