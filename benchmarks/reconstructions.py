"""How well hidden patches are guessed: models' decoders beside simple ways to fill patches in.

    python -m benchmarks.reconstructions --data FOLDER [--model FOLDER]... [--photos 1000] [--sheet OUT.png]

Of every photo the same patches are hidden from all: half of them, then three quarters. Guesses are compared
with the photo as bytes, where patches were hidden: by their PSNR, and by their SSIM with the visible patches
in place (Wang et al. 2004: a Gaussian window of 1.5 pixels, each channel). A window near a patch's edge sees
its neighbours too, so SSIM notices seams. Figures are means over photos, with 95 % intervals. A model's guess
is measured as it is, and with the seams between guesses softened.

The simple ways see the visible pixels at full precision, which a model does not:

- mean colour: the mean of the visible pixels;
- bicubic: SciPy's `griddata(method="cubic")` through the visible pixels, and their nearest one outside them;
- biharmonic: scikit-image's inpainting, the smoothest surface that continues the visible pixels.

`--sheet` draws a few photos instead: a row for each and for each share of hidden patches, with the photo,
what is visible of it, and what each model and the bicubic surface make of that.

Needs scikit-image, which brings SciPy: `pip install vitmae-search[demo]`.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.interpolate import griddata
from skimage.metrics import structural_similarity
from skimage.restoration import inpaint_biharmonic

from benchmarks.timing import describe_machine, markdown_table
from vitmae_search.bundled import DEFAULT_MODEL, bundled
from vitmae_search.photos.reconstruction_sheet import compose_sheet, zoom
from vitmae_search.photos.seams import soften_seams
from vitmae_search.records import Reconstruction
from vitmae_search.training.data.packed_photos import list_photos
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining, reconstruct

MASK_RATIOS = (0.5, 0.75)
LEAST_SQUARED_ERROR = 1.0  # of a byte: a photo's PSNR is at most 48.1 dB

Pixels = NDArray[np.uint8]
"""(H, W, 3) RGB."""
Hidden = NDArray[np.bool_]
"""(H, W), True where a patch is hidden."""
Fill = Callable[[Pixels, Hidden], Pixels]
"""Guesses the hidden pixels; what it returns for visible ones is not looked at."""


class Similarity(NamedTuple):
    """Of a guess and the photo, in the hidden patches: PSNR in dB, SSIM up to 1."""

    psnr: float
    ssim: float


def main() -> None:
    """Print the table, or draw the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--model", type=Path, action="append", help="a checkpoint's folder; the bundled one")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--sheet", type=Path, help="draw the photos into this file instead")
    chosen = parser.parse_args()
    models = [Model(folder) for folder in chosen.model or [bundled("data/models") / DEFAULT_MODEL]]
    files = [stamp.path for stamp in list_photos(chosen.data)]
    photos = random.Random(0).sample(files, min(chosen.photos, len(files)))
    if chosen.sheet is not None:
        draw(sorted(photos), models).save(chosen.sheet, optimize=True)
        return
    print(f"{len(photos)} photos; {describe_machine('torch', 'scikit-image')}\n")
    print(_table({ratio: compare(photos, models, ratio) for ratio in MASK_RATIOS}))


class Model:
    """A masked autoencoder that fills hidden patches in.

    Args:
        folder: Its checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._model = ViTMAEForPreTraining.from_pretrained(folder)
        self._processor = ViTImageProcessor.from_pretrained(folder)

    @property
    def config(self) -> ViTMAEConfig:
        """Its configuration."""
        return self._model.config

    def reconstruct(self, photo: str, mask_ratio: float, seed: int) -> Reconstruction:
        """Hide some of a photo's patches, and fill them in.

        Args:
            photo: A file.
            mask_ratio: The share of patches to hide.
            seed: Which ones.
        """
        mask = random_mask(self.config.grid_size, mask_ratio, seed)
        with Image.open(photo) as image:
            return reconstruct(self._model, self._processor, image.convert("RGB"), mask=mask)


def compare(photos: Sequence[str], models: Sequence[Model], mask_ratio: float) -> dict[str, list[Similarity]]:
    """Fill in the hidden patches of each photo in every way.

    Args:
        photos: Files.
        models: All of one image and patch size.
        mask_ratio: The share of patches to hide.

    Returns:
        A similarity for each photo, by the way's name.
    """
    found: dict[str, list[Similarity]] = defaultdict(list)
    for number, path in enumerate(photos):
        for model in models:
            made = model.reconstruct(path, mask_ratio, seed=number)
            hidden = hidden_pixels(made)
            found[model.name].append(similarity(made.original, made.pasted, hidden))
            found[f"{model.name}, softened"].append(similarity(made.original, soften_seams(made), hidden))
        for name, fill in FILLS.items():
            filled = np.where(hidden[..., None], fill(made.original, hidden), made.original)
            found[name].append(similarity(made.original, filled, hidden))
    return found


def draw(photos: Sequence[str], models: Sequence[Model]) -> Image.Image:
    """Photos, what is visible of them, and what each model and the bicubic surface make of that.

    Args:
        photos: Files.
        models: All of one image and patch size.
    """
    rows = []
    for path, ratio in itertools.product(photos, MASK_RATIOS):
        made = [model.reconstruct(path, ratio, seed=0) for model in models]
        original, hidden = made[0].original, hidden_pixels(made[0])
        bicubic = np.where(hidden[..., None], fill_bicubic(original, hidden), original)
        rows.append([original, made[0].masked, *(each.pasted for each in made), bicubic])
    return compose_sheet([[zoom(panel, 2) for panel in row] for row in rows], gap=8, margin=8)


def hidden_pixels(made: Reconstruction) -> Hidden:
    """The pixels of the hidden patches."""
    height, width = np.divide(made.original.shape[:2], made.mask.shape).astype(int)
    return made.mask.repeat(height, axis=0).repeat(width, axis=1)


def random_mask(grid_size: tuple[int, int], mask_ratio: float, seed: int) -> NDArray[np.bool_]:
    """(gh, gw) bool with a share of `mask_ratio` True.

    Args:
        grid_size: (gh, gw).
        mask_ratio: In [0, 1].
        seed: Of the random choice.
    """
    count = grid_size[0] * grid_size[1]
    order = np.random.default_rng(seed).permutation(count)
    return (order < round(mask_ratio * count)).reshape(grid_size)


def similarity(original: Pixels, filled: Pixels, hidden: Hidden) -> Similarity:
    """Compare a fill with the photo in the hidden patches.

    Args:
        original: The photo.
        filled: The fill, with the visible patches in place.
        hidden: Where to compare.
    """
    error = float(((original[hidden].astype(float) - filled[hidden]) ** 2).mean())
    psnr = 10 * np.log10(255**2 / max(error, LEAST_SQUARED_ERROR))
    _, ssim = structural_similarity(  # type: ignore[no-untyped-call]
        original,
        filled,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return Similarity(float(psnr), float(ssim[hidden].mean()))


def fill_mean(original: Pixels, hidden: Hidden) -> Pixels:
    """The mean of the visible pixels, everywhere.

    Args:
        original: The photo.
        hidden: What not to look at.
    """
    mean = original[~hidden].mean(axis=0).round().astype(np.uint8)
    return np.broadcast_to(mean, original.shape)


def fill_bicubic(original: Pixels, hidden: Hidden) -> Pixels:
    """A cubic surface through the visible pixels; outside their hull the nearest of them.

    Args:
        original: The photo.
        hidden: What not to look at.
    """
    seen, wanted = np.argwhere(~hidden), np.argwhere(hidden)
    values = original[~hidden].astype(float)
    cubic = griddata(seen, values, wanted, method="cubic")
    nearest = griddata(seen, values, wanted, method="nearest")
    filled = original.copy()
    filled[hidden] = np.where(np.isnan(cubic), nearest, cubic).clip(0, 255).round()
    return filled


def fill_biharmonic(original: Pixels, hidden: Hidden) -> Pixels:
    """The biharmonic surface that continues the visible pixels.

    Args:
        original: The photo.
        hidden: What not to look at.
    """
    filled = inpaint_biharmonic(original / 255, hidden, channel_axis=2)
    guess: Pixels = (filled.clip(0, 1) * 255).round().astype(np.uint8)
    return guess


FILLS: dict[str, Fill] = {
    "mean colour": fill_mean,
    "bicubic": fill_bicubic,
    "biharmonic": fill_biharmonic,
}


def _table(found: Mapping[float, Mapping[str, Sequence[Similarity]]]) -> str:
    """A row for each way of filling in; of each mask ratio, two columns."""
    header = [f"{ratio:.0%} hidden: {figure}" for ratio in found for figure in ("PSNR, dB", "SSIM")]
    ways = next(iter(found.values()))
    rows = [[way, *(cell for each in found.values() for cell in _cells(each[way]))] for way in ways]
    return markdown_table(["", *header], rows)


def _cells(similarities: Sequence[Similarity]) -> tuple[str, str]:
    psnr, ssim = zip(*similarities, strict=True)
    return _interval(psnr, 2), _interval(ssim, 4)


def _interval(values: Sequence[float], digits: int) -> str:
    """The mean, and half of its 95 % interval."""
    half = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


if __name__ == "__main__":
    main()
