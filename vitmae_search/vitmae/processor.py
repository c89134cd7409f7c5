"""`ViTImageProcessor`: pictures to `pixel_values`, bit for bit as the reference's Pillow backend."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitmae_search.errors import ConfigError, ModelNotFound, display_path
from vitmae_search.vitmae.checkpoints import PREPROCESSOR_NAME, CheckpointFiles, find_checkpoint
from vitmae_search.vitmae.config import ViTMAEConfig, read_json, write_json
from vitmae_search.vitmae.images import ChannelFormat, ImageInput, split_images, to_rgb

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_IGNORED = ("feature_extractor_type", "image_processor_type", "processor_class", "_processor_class")

logger = logging.getLogger(__name__)


class BatchFeature(dict[str, Any]):
    """`pixel_values` under its name, also as an attribute, so that `model(**processor(image))` works."""

    @property
    def pixel_values(self) -> Any:
        return self["pixel_values"]

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move the tensors to a device or dtype, as `Tensor.to` does."""
        moved = {k: v.to(*args, **kwargs) if isinstance(v, Tensor) else v for k, v in self.items()}
        return BatchFeature(moved)


@dataclass
class ViTImageProcessor:
    """Resize to `size`, rescale to [0, 1], and normalise by mean and deviation a channel.

    The defaults are the reference class's own; facebook/vit-mae-base has ImageNet's mean and deviation
    in its file. `size` is {"height": H, "width": W}; a side alone, as files of 2022 have it, is taken for
    both. `resample` is Pillow's number of a filter, 2 for bilinear.
    """

    do_resize: bool = True
    size: Mapping[str, int] | int = field(default_factory=lambda: {"height": 224, "width": 224})
    resample: int = 2
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Sequence[float] = (0.5, 0.5, 0.5)
    image_std: Sequence[float] = (0.5, 0.5, 0.5)
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
        input_data_format: ChannelFormat | None = None,
    ) -> BatchFeature:
        """One picture or several to `pixel_values`, (N, 3, H, W) float32.

        A picture is a Pillow image of any mode, or an array or tensor, (H, W), HWC or CHW (`images.to_rgb`
        says what becomes of each). With `return_tensors=None` the result is a list of arrays, CHW.
        """
        pixels = [self.normalise(self.resize(image, input_data_format)) for image in split_images(images)]
        if return_tensors is None:
            return BatchFeature(pixel_values=pixels)
        if len({array.shape for array in pixels}) > 1:
            raise ValueError("pictures of different sizes make no batch; do_resize is off")
        batch = np.stack(pixels)
        return BatchFeature(pixel_values=torch.from_numpy(batch) if return_tensors == "pt" else batch)

    def resize(
        self, image: ImageInput, input_data_format: ChannelFormat | None = None
    ) -> NDArray[np.uint8]:
        """The first half of the work: (3, H, W) uint8."""
        rgb, how = to_rgb(image, input_data_format)
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
        return {**self.extra, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Unknown keys go to `extra`; absent ones, and null, take their default."""
        known = {f.name for f in fields(cls)} - {"extra"}
        given = {name: value for name, value in values.items() if name in known and value is not None}
        extra = {k: v for k, v in values.items() if k not in known and k not in _IGNORED}
        return cls(**given, extra=extra)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Read preprocessor_config.json from a folder, beside a weights file, or from a hub id.

        `kwargs` are those of `find_checkpoint`. Raises `ModelNotFound` where there is none.
        """
        folder = Path(name_or_path).expanduser()
        alone = folder / PREPROCESSOR_NAME
        path = alone if alone.is_file() else find_checkpoint(name_or_path, **kwargs).preprocessor
        if path is None:
            raise ModelNotFound(f"{display_path(name_or_path)} has no {PREPROCESSOR_NAME}.")
        return cls.from_dict(read_json(path))

    @classmethod
    def for_checkpoint(cls, files: CheckpointFiles, config: ViTMAEConfig) -> Self:
        """The checkpoint's own processor; without one, the model's size and ImageNet's statistics."""
        if files.preprocessor:
            return cls.from_dict(read_json(files.preprocessor))
        height, width = config.image_shape
        return cls(size={"height": height, "width": width}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)

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
        if self.do_normalize:
            mean = np.asarray(self.image_mean, dtype=np.float32)[:, None]
            table = (table - mean) / np.asarray(self.image_std, dtype=np.float32)[:, None]
        return table


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
