"""How well hidden patches are guessed: models' decoders beside simple ways to fill patches in.

    python -m benchmarks.reconstructions --data tiny-imagenet-200/val [--model FOLDER]... [--photos 1000]

Of every photo the same patches are hidden from all: half of them, then three quarters. Guesses are compared
with the photo as bytes, where patches were hidden: by their PSNR, and by their SSIM with the visible patches
in place (Wang et al. 2004: a Gaussian window of 1.5 pixels, each channel). A window near a patch's edge sees
its neighbours too, so SSIM notices seams. Figures are means over photos, with 95 % intervals.

The simple ways see the visible pixels at full precision, which a model does not:

- mean colour: the mean of the visible pixels;
- bicubic: SciPy's `griddata(method="cubic")` through the visible pixels, and their nearest one outside them;
- biharmonic: scikit-image's inpainting, the smoothest surface that continues the visible pixels.

Needs scikit-image, which brings SciPy: `pip install vitmae-search[demo]`.
"""

from __future__ import annotations

import argparse
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
from vitmae_search.training.data.packed_photos import list_photos
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining, reconstruct

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
    """Print a table for each mask ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--model", type=Path, action="append", help="a checkpoint's folder; the bundled one")
    parser.add_argument("--photos", type=int, default=1000)
    chosen = parser.parse_args()
    models = [Model(folder) for folder in chosen.model or [bundled("data/models") / DEFAULT_MODEL]]
    files = [stamp.path for stamp in list_photos(chosen.data)]
    photos = random.Random(0).sample(files, min(chosen.photos, len(files)))
    print(f"{len(photos)} photos; {describe_machine('torch', 'scikit-image')}\n")
    for ratio in MASK_RATIOS:
        print(f"{ratio:.0%} of the patches hidden:\n")
        print(_table(compare(photos, models, ratio)), flush=True)


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
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self._model.config.grid_size

    def guess(self, image: Image.Image, mask: NDArray[np.bool_]) -> tuple[Pixels, Pixels]:
        """The photo at the model's size, and with the masked patches filled in.

        Args:
            image: The photo.
            mask: (gh, gw), True where a patch is hidden.
        """
        made = reconstruct(self._model, self._processor, image, mask=mask)
        return made.original, made.pasted


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
        image = Image.open(path).convert("RGB")
        mask = random_mask(models[0].grid_size, mask_ratio, seed=number)
        for model in models:
            original, filled = model.guess(image, mask)
            hidden = np.kron(mask, np.ones(np.divide(original.shape[:2], mask.shape).astype(int))) > 0
            found[model.name].append(similarity(original, filled, hidden))
        for name, fill in FILLS.items():
            filled = np.where(hidden[..., None], fill(original, hidden), original)
            found[name].append(similarity(original, filled, hidden))
    return found


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


def _table(found: Mapping[str, Sequence[Similarity]]) -> str:
    rows = [
        [name, _interval([s.psnr for s in all_], 2), _interval([s.ssim for s in all_], 4)]
        for name, all_ in found.items()
    ]
    return markdown_table(["", "PSNR, dB", "SSIM"], rows) + "\n"


def _interval(values: Sequence[float], digits: int) -> str:
    """The mean, and half of its 95 % interval."""
    half = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


if __name__ == "__main__":
    main()
