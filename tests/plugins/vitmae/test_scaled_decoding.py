"""Scaled decoding of JPEGs against exact decoding: trained weights give nearly the same vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, PluginHost, open_embedder
from vitmae_search.photos import decode, decode_target

DEFAULT = bundled("data") / "models" / "vitmae-tiny-patch8-64"
WIDTH, HEIGHT = 3460, 2596
"""Nine megapixels, and no multiple of 8: the last blocks are partly padding."""

pytestmark = pytest.mark.skipif(not DEFAULT.is_dir(), reason="the default model is not trained yet")


def texture() -> Image.Image:
    """Noise at all scales, as of leaves and gravel."""
    random, total = np.random.default_rng(3), np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for step in (1, 3, 9, 27, 81, 243):
        size = -(-WIDTH // step), -(-HEIGHT // step)
        noise = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    return to_image((total / 6 - 128) * 1.6 + 128)


def chart() -> Image.Image:
    """Rings that grow finer from the middle outwards, down to two pixels, in three colours."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    squares = (x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2
    phases = squares * (np.pi / WIDTH / 1.3)
    return to_image(128 + 120 * np.stack([np.cos(phases * share) for share in (1, 0.7, 0.31)], axis=2))


def gratings() -> Image.Image:
    """A photo of a temple, with the finest parts of the chart over a quarter of it."""
    image = Image.fromarray(load_sample_images().images[0]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    box = (WIDTH // 2, HEIGHT // 2, WIDTH, HEIGHT)
    image.paste(chart().crop(box), box)
    return image


def text() -> Image.Image:
    """Lines of letters, one to fifty pixels of stroke, on colours."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (235, 228, 210))
    draw, top = ImageDraw.Draw(image), 0
    for line, size in enumerate((14, 18, 24, 36, 50, 72, 110, 160, 240, 340, 480)):
        for _ in range(3):
            colour = (20 + 70 * (line % 3), 30, 160 - 40 * (line % 4))
            draw.text((line * 5, top), "vitmae-search reads fine print " * 9, fill=colour, font_size=size)
            top += size
    return image


def to_image(values: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module", params=[texture, gratings, text], ids=lambda make: make.__name__)
def detail(request: pytest.FixtureRequest) -> Image.Image:
    image: Image.Image = request.param()
    return image


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[int], GuardedEmbedder]]:
    plugin, embedders = PluginHost().get("vitmae"), dict[int, GuardedEmbedder]()

    def open_at(size: int) -> GuardedEmbedder:
        if size not in embedders:
            embedders[size] = open_embedder(plugin, {"image_size": size}, "cpu", "fp32")
        return embedders[size]

    yield open_at
    for embedder in embedders.values():
        embedder.close()


@pytest.mark.parametrize(("quality", "subsampling"), [(30, 2), (75, 2), (95, 0)])
def test_fine_detail_gives_the_vector_of_exact_decoding(
    opened: Callable[[int], GuardedEmbedder], detail: Image.Image, quality: int, subsampling: int
) -> None:
    assert min(cosines(opened, detail, quality, subsampling)) >= 0.9999


def test_detail_finer_than_the_model_resolves_gives_nearly_the_same_vector(
    opened: Callable[[int], GuardedEmbedder],
) -> None:
    """The model averages nearly all of the rings to one grey, so that small differences weigh more."""
    assert min(cosines(opened, chart(), 75, 2)) >= 0.995


def cosines(
    opened: Callable[[int], GuardedEmbedder], image: Image.Image, quality: int, subsampling: int
) -> list[float]:
    """Default decoding to exact, at the model's own side and at 224 pixels."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    exact, found = decode(buffer.getvalue()).image, []
    for embedder in (opened(0), opened(224)):
        scaled = decode(buffer.getvalue(), shrink_to=decode_target("scaled", embedder.input_size)).image
        assert scaled.width < exact.width / 3, "nothing was left out: this compares a picture with itself"
        both = embedder.embed(np.stack([embedder.prepare(image) for image in (exact, scaled)]))
        found.append(float(both[0] @ both[1]))
    return found
