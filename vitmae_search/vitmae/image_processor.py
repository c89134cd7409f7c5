"""`ViTImageProcessor`: pictures to `pixel_values`, bit for bit as the reference's Pillow backend.

Whatever a caller calls a picture, as an RGB Pillow image.

What a processor returns.

Classes by what a file says it is for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.checkpoint.checkpoint import is_timm_config
from vitmae_search.vitmae.checkpoint.locate import PREPROCESSOR_NAME, CheckpointFiles, find_preprocessor
from vitmae_search.vitmae.checkpoint.weights import read_json, write_json
from vitmae_search.vitmae.config import EncoderConfig

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


class BatchFeature(dict[str, Any]):
    """`pixel_values` under its name, also as an attribute, so that `model(**processor(image))` works."""

    @property
    def pixel_values(self) -> Any:
        return self["pixel_values"]

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move the tensors to a device or dtype, as `Tensor.to` does."""
        moved = {k: v.to(*args, **kwargs) if isinstance(v, Tensor) else v for k, v in self.items()}
        return BatchFeature(moved)


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_IGNORED = ("feature_extractor_type", "image_processor_type", "processor_class", "_processor_class")

logger = logging.getLogger(__name__)


@dataclass
class ViTImageProcessor:
    """Resize to `size`, rescale to [0, 1], and normalise by mean and deviation a channel.

    The defaults are the reference class's own; facebook/vit-mae-base has ImageNet's mean and deviation
    in its file. `size` is {"height": H, "width": W}; a side alone, as files of 2022 have it, is taken for
    both. `resample` is Pillow's number of a filter, 2 for bilinear. Whatever is not RGB becomes it, unless
    `do_convert_rgb` is False: then it is refused.
    """

    do_resize: bool = True
    size: Mapping[str, int] | int = field(default_factory=lambda: {"height": 224, "width": 224})
    resample: int = 2
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Sequence[float] = (0.5, 0.5, 0.5)
    image_std: Sequence[float] = (0.5, 0.5, 0.5)
    do_convert_rgb: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        self.size = _parse_size(self.size)
        self.resample = int(self.resample)
        self.image_mean = _three("image_mean", self.image_mean)
        self.image_std = _three("image_std", self.image_std)
        if any(value <= 0 for value in self.image_std):
            raise ConfigError("image_std", self.image_std, "must be positive")
        if self.resample not in set(Image.Resampling):
            raise ConfigError("resample", self.resample, "must be the number of one of Pillow's filters")
        for step in ("do_center_crop", "do_pad"):
            if self.extra.get(step):
                raise ConfigError(step, True, "is not supported: a ViTMAE sees the whole picture")

    @property
    def height_width(self) -> tuple[int, int]:
        """What pictures are resized to."""
        assert isinstance(self.size, Mapping)
        return self.size["height"], self.size["width"]

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        return_tensors: Literal["pt", "np"] | None = None,
        *,
        data_format: ChannelFormat = "channels_first",
        input_data_format: ChannelFormat | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """One picture or several to `pixel_values`, (N, 3, H, W) float32.

        A picture is a Pillow image of any mode, or an array or tensor, (H, W), HWC or CHW (`images.to_rgb`
        says what becomes of each). `overrides` replace fields for this call. With `return_tensors=None`
        the result is a list of arrays; `data_format` says where their channels are.

        Raises `ConfigError` for an override that is no field, `ValueError` or `TypeError` for what is no
        picture, and for pictures of different sizes in one batch.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ConfigError("return_tensors", return_tensors, 'must be "pt", "np" or None')
        chosen = self._with_overrides(overrides)
        pixels = [chosen._one(image, input_data_format) for image in split_images(images)]
        if data_format == "channels_last":
            pixels = [np.moveaxis(array, 0, -1) for array in pixels]
        if return_tensors is None:
            return BatchFeature(pixel_values=pixels)
        if len({array.shape for array in pixels}) > 1:
            raise ValueError("pictures of different sizes make no batch; do_resize is off")
        batch = np.stack(pixels)
        return BatchFeature(pixel_values=torch.from_numpy(batch) if return_tensors == "pt" else batch)

    preprocess = __call__

    def _with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """Itself, or a copy with some fields replaced; None leaves a field as it is."""
        known = {f.name for f in fields(self)} - {"extra"}
        for name, value in overrides.items():
            if name not in known:
                raise ConfigError(name, value, f"is not a field of {type(self).__name__}")
        given = {name: value for name, value in overrides.items() if value is not None}
        return replace(self, **given) if given else self

    def _one(self, image: ImageInput, input_data_format: ChannelFormat | None) -> NDArray[Any]:
        """One picture's pixel values, (3, H, W)."""
        if self.do_rescale or not is_unit_float(image):
            return self.normalise(self.resize(image, input_data_format))
        # Floats in [0, 1] with do_rescale off are scaled already: they stay so.
        if self.do_resize:
            eight_bits = replace(self, do_rescale=True, rescale_factor=1 / 255)
            return eight_bits.normalise(eight_bits.resize(image, input_data_format))
        values = unit_planes(image, input_data_format)
        return self._standardise(values) if self.do_normalize else values

    def resize(self, image: ImageInput, input_data_format: ChannelFormat | None = None) -> NDArray[np.uint8]:
        """The first half of the work: (3, H, W) uint8."""
        rgb, how = to_rgb(image, input_data_format)
        if how and self.do_convert_rgb is False and isinstance(image, Image.Image):
            raise ValueError(f"a picture of mode {image.mode} is not RGB, and do_convert_rgb is off")
        if how:
            logger.info("%s", how)
        if self.do_resize:
            height, width = self.height_width
            rgb = rgb.resize((width, height), Image.Resampling(self.resample))
        return np.ascontiguousarray(np.moveaxis(np.asarray(rgb), -1, 0))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """The second half: (..., 3, H, W) uint8 to float32, or unchanged where nothing is to be done.

        By a table of the 256 values a channel, which the steps are done on: the same bits, and faster.
        """
        if not (self.do_rescale or self.do_normalize):
            return pixels
        table = self._table()
        planes = [table[channel][pixels[..., channel, :, :]] for channel in range(3)]
        return np.stack(planes, axis=-3)

    def denormalise(self, pixel_values: NDArray[Any]) -> NDArray[np.uint8]:
        """(..., 3, H, W) as the model sees it, or predicts it, to uint8 pixels, rounded and clipped."""
        values = np.asarray(pixel_values, dtype=np.float64)
        if self.do_normalize:
            mean, deviation = (np.reshape(v, (3, 1, 1)) for v in (self.image_mean, self.image_std))
            values = values * deviation + mean
        if self.do_rescale:
            values = values / self.rescale_factor
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as preprocessor_config.json has them."""
        height, width = self.height_width
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        values.update(size={"height": height, "width": width}, image_mean=list(self.image_mean))
        values.update(image_std=list(self.image_std), image_processor_type="ViTImageProcessor")
        if self.do_convert_rgb is None:
            del values["do_convert_rgb"]  # as files have it that know nothing of it
        return {**self.extra, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Unknown keys go to `extra`; absent ones, and null, take their default."""
        known = {f.name for f in fields(cls)} - {"extra"}
        given = {name: value for name, value in values.items() if name in known and value is not None}
        extra = {k: v for k, v in values.items() if k not in known and k not in _IGNORED}
        return cls(**given, extra=extra)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> Self:
        """Read preprocessor_config.json from a folder, beside a weights file, or from a hub id.

        `overrides` replace fields. Raises `ModelNotFound` where there is none.
        """
        path = find_preprocessor(name_or_path, revision=revision, local_files_only=local_files_only)
        return cls.from_dict(read_json(path))._with_overrides(overrides)

    @classmethod
    def for_checkpoint(cls, files: CheckpointFiles, config: EncoderConfig) -> Self:
        """The checkpoint's own processor; without one, the model's size and ImageNet's statistics.

        Of timm's config.json the mean, the deviation and the filter are taken.
        """
        if files.preprocessor:
            return cls.from_dict(read_json(files.preprocessor))
        height, width = config.image_shape
        fields: dict[str, Any] = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
        values = read_json(files.config) if files.config else {}
        if is_timm_config(values):
            fields.update(_timm_fields(values))
        return cls(size={"height": height, "width": width}, **fields)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / PREPROCESSOR_NAME, self.to_dict())

    def _table(self) -> NDArray[np.float32]:
        """(3, 256): what each value of each channel becomes, rounded where the reference rounds."""
        values = np.arange(256, dtype=np.float64)
        if self.do_rescale:
            values = values * self.rescale_factor
        table = np.repeat(values.astype(np.float32)[None], 3, axis=0)
        return self._standardise(table[:, None])[:, 0] if self.do_normalize else table

    def _standardise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(3, H, W), rescaled, to mean 0 and deviation 1 where the fields are right."""
        mean, deviation = (
            np.asarray(v, dtype=np.float32).reshape(3, 1, 1) for v in (self.image_mean, self.image_std)
        )
        standard: NDArray[np.float32] = (values - mean) / deviation
        return standard


def _timm_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that timm's config.json gives. Its crop of the middle (`crop_pct`) is not done here."""
    pretrained = values.get("pretrained_cfg") or {}
    filters = {filter_.name.lower(): int(filter_) for filter_ in Image.Resampling}
    found = {
        "image_mean": pretrained.get("mean"),
        "image_std": pretrained.get("std"),
        "resample": filters.get(str(pretrained.get("interpolation"))),
    }
    return {name: value for name, value in found.items() if value is not None}


def _parse_size(size: Mapping[str, int] | int) -> dict[str, int]:
    rule = 'must be a side in pixels, or {"height": H, "width": W}'
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if not isinstance(size, Mapping) or not {"height", "width"} <= size.keys():
        raise ConfigError("size", size, rule)
    sides = {"height": size["height"], "width": size["width"]}
    if not all(isinstance(side, int) and side > 0 for side in sides.values()):
        raise ConfigError("size", size, rule)
    return sides


def _three(name: str, values: Sequence[float] | float) -> tuple[float, ...]:
    numbers = (values,) * 3 if isinstance(values, int | float) else tuple(values)
    if len(numbers) != 3 or not all(isinstance(number, int | float) for number in numbers):
        raise ConfigError(name, values, "must be three numbers, or one for all channels")
    return tuple(float(number) for number in numbers)


_KINDS = (
    "ViTImageProcessor",
    "ViTImageProcessorFast",
    "ViTImageProcessorPil",
    "ViTFeatureExtractor",
)


class AutoImageProcessor:
    """Makes the processor that a preprocessor_config.json names: `ViTImageProcessor`, by any of its names."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> ViTImageProcessor:
        """As `ViTImageProcessor.from_pretrained`. Raises `ConfigError` for a file of another processor."""
        path = find_preprocessor(name_or_path, revision=revision, local_files_only=local_files_only)
        values = read_json(path)
        for kind in ("image_processor_type", "feature_extractor_type"):
            if values.get(kind, _KINDS[0]) not in _KINDS:
                raise ConfigError(kind, values[kind], f"must be one of {', '.join(_KINDS)}")
        return ViTImageProcessor.from_pretrained(path, **overrides)
