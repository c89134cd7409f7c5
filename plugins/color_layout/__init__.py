"""Colour layout: which colours a picture has, and where. NumPy and Pillow only.

A complete example of an embedding plugin, and a baseline that a learned model has to beat. The layout is
the idea of MPEG-7's Color Layout Descriptor (ISO/IEC 15938-3; Kasutani and Yamada, ICIP 2001): the mean
colours of an 8×8 grid in YCbCr, of whose cosine transform the 6, 3 and 3 lowest frequencies are kept. A
colour histogram is added because it tolerates crops, which the layout alone does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import DeviceError, Embedder, EmbedderPlugin, Options, PluginInfo

SIDE = 64  # pixels; 8 for each cell of the grid
GRID = 8
BINS = (16, 4, 4)  # hue, saturation, value
LAYOUT_WEIGHT = 4.0  # relative to a histogram of unit length; values from 2 to 8 retrieve equally well

# Rows Y, Cb, Cr of BT.601 in full range, as in JPEG. Chroma counts double because it varies less.
_YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
) * np.array([[1.0], [2.0], [2.0]])
_FREQUENCY = np.add.outer(np.arange(GRID), np.arange(GRID))
_KEPT = _FREQUENCY[..., None] < np.array([3, 2, 2])  # (8, 8, 3): 6 + 3 + 3 coefficients


def _dct_matrix() -> NDArray[np.float64]:
    """(frequency, position): the orthonormal DCT-II of `GRID` samples."""
    frequency, position = np.arange(GRID)[:, None], np.arange(GRID)[None, :]
    angles = np.pi * (2 * position + 1) * frequency / (2 * GRID)
    waves: NDArray[np.float64] = np.sqrt(2 / GRID) * np.cos(angles)
    waves[0] /= np.sqrt(2)
    return waves


_DCT = _dct_matrix()


def prepare(image: Image.Image, /) -> NDArray[np.uint8]:
    """The whole image as (SIDE, SIDE, 3) uint8, each pixel the mean of its area."""
    return np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def layout(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, SIDE, SIDE, 3) to (N, 12): low frequencies of luma and chroma, roughly within ±1."""
    cell = SIDE // GRID
    means = pixels.reshape(len(pixels), GRID, cell, GRID, cell, 3).mean(axis=(2, 4)) / 255
    channels = means @ _YCBCR.T - np.array([0.5, 0.0, 0.0])
    waves: NDArray[np.float64] = np.einsum("ai,nijc,bj->nabc", _DCT, channels, _DCT)
    kept: NDArray[np.float64] = waves[:, _KEPT] / GRID
    return kept


def histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, SIDE, SIDE, 3) to (N, 256): square roots of the colours' fractions, so rows have unit length."""
    hues, saturations, values = BINS
    rows = np.empty((len(pixels), hues * saturations * values))
    for row, image in zip(rows, pixels, strict=True):
        hsv = np.asarray(Image.fromarray(image).convert("HSV")).astype(np.int64) * BINS // 256
        index = (hsv[..., 0] * saturations + hsv[..., 1]) * values + hsv[..., 2]
        row[:] = np.sqrt(np.bincount(index.ravel(), minlength=row.size) / index.size)
    return rows


class ColorLayoutEmbedder(Embedder):
    """Colour layout and histogram, or with `with_histogram=False` the layout and a constant.

    The constant keeps the vector's length above 0.
    """

    def __init__(self, with_histogram: bool) -> None:
        self.with_histogram = with_histogram
        self.model = "color-layout" if with_histogram else "color-layout-only"
        self.identity = {"histogram": with_histogram, "side": SIDE, "bins": list(BINS)}
        self.provenance = {"device": "cpu", "precision": "fp32", "numpy": np.__version__}
        self.dimension = int(_KEPT.sum()) + (int(np.prod(BINS)) if with_histogram else 1)
        self.input_size = SIDE
        self.prepare = prepare

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, SIDE, SIDE, 3) uint8 to (N, dimension) unit rows."""
        second = histogram(batch) if self.with_histogram else np.ones((len(batch), 1))
        features = np.concatenate([LAYOUT_WEIGHT * layout(batch), second], axis=1)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        return np.ascontiguousarray(features, dtype=np.float32)


class ColorLayoutPlugin(EmbedderPlugin):
    """Its option `histogram` says whether the colour histogram is part of the vector."""

    info = PluginInfo(
        name="color_layout",
        title="Colour layout: where which colours lie (NumPy only, no model)",
        options={"histogram": True},
    )

    def open(self, options: Options, *, device: str, precision: str) -> ColorLayoutEmbedder:
        """An embedder on the CPU.

        Args:
            options: histogram.
            device: auto or cpu.
            precision: auto or fp32.

        Raises:
            DeviceError: For any other device or precision.
        """
        if device not in ("auto", "cpu") or precision not in ("auto", "fp32"):
            raise DeviceError(f"color_layout runs on the CPU in fp32, not on {device} in {precision}")
        return ColorLayoutEmbedder(bool(options["histogram"]))


plugin = ColorLayoutPlugin()
