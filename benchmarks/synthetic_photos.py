"""Photos to measure decoding on: the demo's, enlarged, with a camera's noise. No two are the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from vitmae_search.library import write_samples

SMALL, LARGE = (500, 375), (4000, 3000)
"""(width, height) of a photo from the web and of one from a phone."""
_QUALITY = 90
_NOISE = 2.5
"""Standard deviation in levels. At 12 megapixels it makes files of 1.4 MB; cameras make those of 1 to 5."""


def make_photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Write JPEGs that are crops of the demo's photos.

    They lack the fine detail of a camera, so real photos show better what decoding changes.

    Args:
        folder: Where they are written.
        size: (width, height) in pixels.
        count: How many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        write_samples(Path(name))
        sources = [Image.open(path).convert("RGB") for path in sorted(Path(name).glob("*-00-*.jpg"))]
    return [_write(folder / f"{number:04d}.jpg", size, number, sources) for number in range(count)]


def _write(path: Path, size: tuple[int, int], number: int, sources: list[Image.Image]) -> Path:
    random = np.random.default_rng(number)
    source = sources[number % len(sources)]
    scale = random.uniform(0.8, 1.0) * min(source.width / size[0], source.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = random.uniform(0, source.width - width), random.uniform(0, source.height - height)
    box = (left, top, left + width, top + height)
    pixels = np.asarray(source.resize(size, Image.Resampling.BICUBIC, box=box), np.float32)
    noise = random.standard_normal(pixels.shape, np.float32) * np.float32(_NOISE)
    image = Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0110] = "Benchmark"
    image.save(path, "JPEG", quality=_QUALITY, exif=exif)
    return path
