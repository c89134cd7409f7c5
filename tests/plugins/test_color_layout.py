"""The NumPy-only plugin: it keeps the contract, needs no torch, and finds changed views of a photo."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, PluginHost, open_embedder
from vitmae_search.embedding.testing import CHECKS, PluginUnderTest
from vitmae_search.errors import DeviceError


@pytest.fixture(scope="module", params=[True, False], ids=["histogram", "layout only"])
def subject(request):
    with PluginUnderTest(bundled("plugins") / "color_layout", {"histogram": request.param}) as subject:
        yield subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(check, subject: PluginUnderTest) -> None:
    check(subject)


@pytest.fixture(scope="module")
def embedder():
    with open_embedder(PluginHost(packages=False).get("color_layout")) as embedder:
        yield embedder


def vectors_of(embedder: GuardedEmbedder, images: list[Image.Image]) -> np.ndarray:
    return embedder.embed(np.stack([embedder.prepare(image) for image in images]))


def photos() -> list[Image.Image]:
    shipped = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket()]
    return [Image.fromarray(array) for array in [*shipped, *load_sample_images().images]]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.crop((image.width // 10, image.height // 10, image.width, image.height)),
        lambda image: image.resize((image.width // 3, image.height // 3)),
        lambda image: ImageEnhance.Brightness(image).enhance(1.2),
        lambda image: image.rotate(4, expand=False),
    ],
    ids=["cropped", "smaller", "brighter", "tilted"],
)
def test_a_changed_view_finds_its_photo(embedder: GuardedEmbedder, change) -> None:
    stored = vectors_of(embedder, photos())
    scores = vectors_of(embedder, [change(image) for image in photos()]) @ stored.T
    assert scores.argmax(axis=1).tolist() == list(range(len(stored)))


def test_colours_in_other_places_are_another_layout(embedder: GuardedEmbedder) -> None:
    red_left = Image.new("RGB", (64, 64), (200, 30, 30))
    red_left.paste((30, 30, 200), (32, 0, 64, 64))
    blue_left = ImageOps.mirror(red_left)
    upright, mirrored, grey = vectors_of(embedder, [red_left, blue_left, Image.new("RGB", (9, 9), "grey")])
    assert upright @ mirrored < 0.95
    assert np.allclose(upright[12:], mirrored[12:], atol=1e-6)  # the same colours, after all
    assert not np.allclose(upright[12:], grey[12:], atol=0.1)


def test_the_layout_is_the_reference_cosine_transform(embedder: GuardedEmbedder) -> None:
    """Against SciPy's DCT and Pillow's own YCbCr, which rounds to whole numbers."""
    fft = pytest.importorskip("scipy.fft")
    module = sys.modules[type(embedder._embedder).__module__]
    image = photos()[1]
    pixels = embedder.prepare(image)
    cells = np.asarray(Image.fromarray(pixels).convert("YCbCr")).astype(float)
    cells = cells.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)) / 255 - [0.5, 128 / 255, 128 / 255]
    waves = fft.dctn(cells, axes=(0, 1), norm="ortho") * [1, 2, 2] / 8
    zigzag = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]
    ours = module.layout(pixels[None])[0]
    assert len(ours) == 12
    for place in zigzag:
        assert np.abs(ours - waves[place][0]).min() < 2e-3
    low = np.add.outer(np.arange(8), np.arange(8))
    energy = sum((waves[low < order, channel] ** 2).sum() for channel, order in enumerate((3, 2, 2)))
    assert np.isclose((ours**2).sum(), energy, rtol=0.02)


def test_it_never_loads_torch() -> None:
    code = (
        "import sys; from PIL import Image\n"
        "from vitmae_search.embedding import PluginHost, open_embedder\n"
        "e = open_embedder(PluginHost(packages=False).get('color_layout'))\n"
        "print(e.embed(e.prepare(Image.new('RGB', (9, 9)))[None]).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(1,", "268)", "False"]


@pytest.mark.parametrize(("device", "precision"), [("cuda", "auto"), ("auto", "bf16")])
def test_what_it_cannot_do_is_refused(device: str, precision: str) -> None:
    with pytest.raises(DeviceError, match="color_layout runs on the CPU in fp32"):
        open_embedder(PluginHost(packages=False).get("color_layout"), {}, device, precision)
