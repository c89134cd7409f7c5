"""Whatever a caller calls a picture, as an RGB Pillow image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

ImageInput: TypeAlias = "Image.Image | NDArray[Any] | Tensor"
ChannelFormat = Literal["channels_first", "channels_last"]


def split_images(images: ImageInput | Sequence[ImageInput]) -> list[ImageInput]:
    """One picture, a sequence of them, or a batch with four axes, as a list."""
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    return list(images)


def to_rgb(image: ImageInput, channels: ChannelFormat | None = None) -> tuple[Image.Image, str | None]:
    """An RGB image, and a sentence on how, or None where it was RGB already.

    Transparency (RGBA, LA, palettes with a transparent colour) is laid on white; grey is repeated; 16 bits
    become 8 by division by 257; 32-bit grey is stretched from its own range; CMYK, LAB, YCbCr and HSV are
    Pillow's. In arrays, floating point in [0, 1] is taken for 0 to 255.

    Raises `ValueError` or `TypeError` for what is no picture.
    """
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return _array_to_rgb(image, channels)
    if not isinstance(image, Image.Image):
        raise TypeError(f"a picture is a Pillow image, an array or a tensor, not {type(image).__name__}")
    return _pillow_to_rgb(image)


def is_unit_float(image: ImageInput) -> bool:
    """Whether it is an array or tensor of floating point in [0, 1]."""
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray) or not np.issubdtype(image.dtype, np.floating):
        return False
    return image.size > 0 and bool(image.min() >= 0 and image.max() <= 1)


def unit_planes(image: ImageInput, channels: ChannelFormat | None = None) -> NDArray[np.float32]:
    """An array of floats in [0, 1] as (3, H, W) float32, not rounded to 8 bits; grey is repeated."""
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    assert isinstance(image, np.ndarray)
    planes = np.moveaxis(_channels_last(image, channels), -1, 0).astype(np.float32)
    if len(planes) == 4:
        raise ValueError("floating point with transparency must be made 8 bits first")
    return np.ascontiguousarray(np.broadcast_to(planes, (3, *planes.shape[1:])))


def _pillow_to_rgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    mode = image.mode
    if mode == "RGB":
        return image, None
    if image.has_transparency_data:
        return _on_white(image), f"{mode} picture: transparency laid on white."
    if mode.startswith("I;16"):
        eight = np.asarray(image).astype(np.uint32) // 257
        return Image.fromarray(eight.astype(np.uint8)).convert("RGB"), f"{mode} picture: 16 bits made 8."
    if mode in ("I", "F"):
        return _stretch(np.asarray(image, dtype=np.float64)), f"{mode} picture: its range made 0 to 255."
    return image.convert("RGB"), f"{mode} picture: converted by Pillow."


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _stretch(values: NDArray[np.float64]) -> Image.Image:
    low, high = float(values.min()), float(values.max())
    eight = np.rint((values - low) * (255 / (high - low) if high > low else 0))
    return Image.fromarray(eight.astype(np.uint8)).convert("RGB")


def _array_to_rgb(array: NDArray[Any], channels: ChannelFormat | None) -> tuple[Image.Image, str | None]:
    last = _channels_last(array, channels)
    eight, how = _to_uint8(last)
    depth = eight.shape[-1]
    if depth == 3:
        return Image.fromarray(np.ascontiguousarray(eight)), how
    image = Image.fromarray(np.ascontiguousarray(eight[..., 0] if depth == 1 else eight))
    rgb, also = _pillow_to_rgb(image)
    return rgb, " ".join(filter(None, (how, also)))


def _channels_last(array: NDArray[Any], channels: ChannelFormat | None) -> NDArray[Any]:
    """(H, W, 1, 3 or 4). Where either end could be the channels, three of them are, the first end first."""
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"a picture has axes (H, W), HWC or CHW, not {array.shape}")
    if channels is None:
        candidates = [(3, 0), (3, 2), (4, 2), (4, 0), (1, 2), (1, 0)]
        axis = next((axis for count, axis in candidates if array.shape[axis] == count), None)
    else:
        axis = 0 if channels == "channels_first" else 2
    if axis is None or array.shape[axis] not in (1, 3, 4):
        raise ValueError(f"no axis of {array.shape} holds 1, 3 or 4 channels")
    return np.moveaxis(array, 0, -1) if axis == 0 else array


def _to_uint8(array: NDArray[Any]) -> tuple[NDArray[np.uint8], str | None]:
    if array.dtype == np.uint8:
        return array, None
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), "bool array: true made 255."
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) // 257).astype(np.uint8), "uint16 array: 16 bits made 8."
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):  # NaN fails both
        raise ValueError(f"pixels must be 0 to 255, or 0 to 1 in floating point, not {low:g} to {high:g}")
    if np.issubdtype(array.dtype, np.floating) and high <= 1:
        return np.rint(array * 255).astype(np.uint8), f"{array.dtype} array: [0, 1] made 0 to 255."
    return array.astype(np.uint8), None
