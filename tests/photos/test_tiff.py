"""TIFF files of every layout of planes, strips and tiles: the right colors, or an error."""

from __future__ import annotations

import itertools
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from vitmae_search.errors import PhotoError, UnsupportedPhoto
from vitmae_search.photos import decode

WIDTH, HEIGHT = 80, 48
HIGH, LOW = 60000, 3000
QUARTERS = [[HIGH, LOW, LOW], [LOW, HIGH, LOW], [LOW, LOW, HIGH], [HIGH, HIGH, LOW]]


def quarters(channels: int) -> NDArray[np.uint16]:
    """(H, W, C): red, green / blue, yellow; opaque where there are more channels."""
    values = np.full((HEIGHT, WIDTH, channels), 65535, np.uint16)
    for color, (y, x) in zip(QUARTERS, itertools.product((0, 1), repeat=2), strict=True):
        values[y * HEIGHT // 2 :, x * WIDTH // 2 :, :3] = color
    return values


def tiff(values: NDArray[Any], order: str, planes: str, **options: Any) -> bytes:
    """The bytes of a TIFF file with `values`, (H, W, C)."""
    buffer = BytesIO()
    stored = np.moveaxis(values, -1, 0) if planes == "separate" else values
    with tifffile.TiffWriter(buffer, byteorder=order) as file:
        file.write(np.ascontiguousarray(stored), photometric="rgb", planarconfig=planes, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16), (32, 48)])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_layout_has_the_right_colors(
    bits: int, channels: int, order: str, planes: str, tile: tuple[int, int] | None, compression: str | None
) -> None:
    values = quarters(channels)
    stored = values if bits == 16 else (values >> 8).astype(np.uint8)
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    data = tiff(stored, order, planes, tile=tile, compression=compression, **extra)
    np.testing.assert_allclose(np.asarray(decode(data).image), values[..., :3] >> 8, atol=1)


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("bits", [8, 16])
def test_other_channels_give_the_right_colors_or_an_error(
    bits: int, planes: str, channels: int, kind: str
) -> None:
    values = quarters(channels)
    stored = values if bits == 16 else (values >> 8).astype(np.uint8)
    try:
        image = decode(tiff(stored, "<", planes, extrasamples=[kind, "unspecified"][: channels - 3])).image
    except PhotoError:
        return
    np.testing.assert_allclose(np.asarray(image), values[..., :3] >> 8, atol=1)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint32, np.float32, np.int16])
def test_a_depth_that_is_not_decoded_is_refused_by_name(kind: type, planes: str) -> None:
    with pytest.raises(UnsupportedPhoto, match="a kind of TIFF"):
        decode(tiff(quarters(3).astype(kind), "<", planes))
