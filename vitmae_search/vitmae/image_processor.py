"""Image preprocessing: `ViTImageProcessor` turns pictures into `pixel_values`.

On RGB pictures it gives the bits of the reference's `ViTImageProcessorPil`. Pictures of any other kind
become RGB first. `AutoImageProcessor` makes the processor that a file names.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vitmae_search.errors import (
    ConfigError,
    DamagedPhoto,
    PhotoTooLarge,
    UnreadablePhoto,
    UnsupportedPhoto,
    display_path,
)
from vitmae_search.vitmae.checkpoint.checkpoint import is_timm_config
from vitmae_search.vitmae.checkpoint.locate import PREPROCESSOR_NAME, CheckpointFiles, find_preprocessor
from vitmae_search.vitmae.checkpoint.weights import read_json, write_json
from vitmae_search.vitmae.config import EncoderConfig

ImageInput: TypeAlias = "Image.Image | NDArray[Any] | Tensor | str | os.PathLike[str]"
"""A Pillow image, an array or tensor of axes (H, W), HWC or CHW, or the path of a picture file."""
ArrayLike: TypeAlias = "NDArray[Any] | Tensor"
ChannelFormat = Literal["channels_first", "channels_last"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

logger = logging.getLogger(__name__)

_IGNORED = ("feature_extractor_type", "image_processor_type", "processor_class", "_processor_class")
_KINDS = ("ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor")
_WHOLE_PICTURE = "is not supported: a ViTMAE sees the whole picture"
_UNSUPPORTED = {
    "do_center_crop": _WHOLE_PICTURE,
    "crop_size": _WHOLE_PICTURE,
    "do_pad": _WHOLE_PICTURE,
    "pad_size": _WHOLE_PICTURE,
    "use_fast": "is not supported: pictures are processed by Pillow alone",
    "backend": 'is not supported: pictures are processed by Pillow alone ("pil")',
    "return_unused_kwargs": "is not supported: an argument that is no field is refused",
    "image_processor_filename": "is not supported: give the path of the file itself",
    "proxies": "is not supported: set HTTPS_PROXY in the environment",
    "trust_remote_code": "is not supported: code from a model's repository is never run",
    "push_to_hub": "is not supported: nothing is uploaded; huggingface_hub can upload the folder",
}
"""The reference's arguments that are refused, with the reason. None and False are accepted."""
_WITHOUT_EFFECT = ("disable_grouping",)
"""The reference's arguments that change no result."""


class BatchFeature(dict[str, Any]):
    """What a processor returns: `pixel_values` by name and as an attribute.

    It unpacks into a model's arguments: `model(**processor(image, return_tensors="pt"))`.
    """

    @property
    def pixel_values(self) -> Any:
        """(N, 3, H, W) as a tensor or an array, or a list of arrays (3, H, W)."""
        return self["pixel_values"]

    @property
    def data(self) -> dict[str, Any]:
        """The values by name, as a plain dict."""
        return dict(self)

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move the tensors to a device or dtype.

        Args:
            *args: As for `Tensor.to`.
            **kwargs: As for `Tensor.to`.

        Returns:
            A new batch; what is no tensor is the same in it.
        """
        moved = {k: v.to(*args, **kwargs) if isinstance(v, Tensor) else v for k, v in self.items()}
        return BatchFeature(moved)


class SizeDict(dict[str, int]):
    """A height and a width in pixels, by key and as attributes."""

    @property
    def height(self) -> int:
        """In pixels."""
        return self["height"]

    @property
    def width(self) -> int:
        """In pixels."""
        return self["width"]


@dataclass
class ViTImageProcessor:
    """Resizes pictures, rescales them to [0, 1], and normalizes each channel by its mean and deviation.

    The defaults are those of the reference's class; facebook/vit-mae-base has ImageNet's mean and deviation
    in its file. Pictures of other modes than RGB are converted (see `to_rgb`).

    Example:
        >>> import numpy as np
        >>> picture = np.zeros((60, 80, 3), dtype=np.uint8)
        >>> ViTImageProcessor(size=32)(picture, return_tensors="pt").pixel_values.shape
        torch.Size([1, 3, 32, 32])

    Attributes:
        do_resize: Whether to resize to `size`.
        size: {"height": H, "width": W} in pixels. One side, as files of 2022 have it, is taken for both.
        resample: The number of a Pillow filter; 2 is bilinear.
        do_rescale: Whether to multiply by `rescale_factor`.
        rescale_factor: What 8-bit values are multiplied by.
        do_normalize: Whether to subtract `image_mean` and divide by `image_std`.
        image_mean: Three numbers, or one for all channels, in units of the rescaled values.
        image_std: Likewise, positive.
        do_convert_rgb: False refuses pictures that are not RGB; True and None convert them.
        extra: Other keys of a file, kept so that they are written back.

    Raises:
        ConfigError: A field breaks a rule, or `extra` switches on a step that is not supported.
    """

    do_resize: bool = True
    size: Mapping[str, int] | int = field(default_factory=lambda: SizeDict(height=224, width=224))
    resample: int = 2
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Sequence[float] = (0.5, 0.5, 0.5)
    image_std: Sequence[float] = (0.5, 0.5, 0.5)
    do_convert_rgb: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __post_init__(self) -> None:
        self.size = _parse_size(self.size)
        self.resample = _parse_resample(self.resample)
        self.image_mean = _three("image_mean", self.image_mean)
        self.image_std = _three("image_std", self.image_std)
        if any(value <= 0 for value in self.image_std):
            raise ConfigError("image_std", self.image_std, "must be positive")
        for step in ("do_center_crop", "do_pad"):
            if self.extra.get(step):
                raise ConfigError(step, True, _UNSUPPORTED[step])

    @property
    def height_width(self) -> tuple[int, int]:
        """The height and width in pixels that pictures are resized to."""
        assert isinstance(self.size, Mapping)
        return self.size["height"], self.size["width"]

    def __call__(
        self,
        images: ImageInput | Iterable[ImageInput],
        return_tensors: Literal["pt", "np"] | None = None,
        *,
        data_format: ChannelFormat = "channels_first",
        input_data_format: ChannelFormat | None = None,
        device: torch.device | str | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Turn one picture or several into `pixel_values`, float32 unless no step makes them so.

        Args:
            images: A picture, several, or an array or tensor of four axes. A picture is a Pillow image of
                any mode, an array or tensor (H, W), HWC or CHW of 1, 3 or 4 channels, or the path of a
                file. Floating point in [0, 1] is taken for pixels that are rescaled already.
            return_tensors: "pt" for a tensor (N, 3, H, W), "np" for an array, None for a list of arrays
                (3, H, W), which may differ in size.
            data_format: Where the channels of the result are.
            input_data_format: Where the channels of arrays and tensors are; None finds the axis that has
                1, 3 or 4 entries, the first of two.
            device: Where the tensor is put; pictures are processed on the CPU in any case.
            **overrides: Fields that take other values in this call; None leaves a field as it is.

        Raises:
            ConfigError: An argument that is not supported, is no field, or breaks a field's rule.
            ValueError: An array is no picture, or pictures differ in size and are to make one batch.
            TypeError: Something else than a picture.
            PhotoError: A file cannot be read or decoded.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ConfigError("return_tensors", return_tensors, 'must be "pt", "np" or None')
        if data_format not in ("channels_first", "channels_last"):
            raise ConfigError("data_format", data_format, 'must be "channels_first" or "channels_last"')
        if return_tensors != "pt" and device is not None and torch.device(device).type != "cpu":
            raise ConfigError("device", device, 'needs return_tensors="pt": arrays are on the CPU')
        chosen = self._with_overrides(overrides)
        pixels = [chosen._process(image, input_data_format) for image in _split_batch(images)]
        if data_format == "channels_last":
            pixels = [np.moveaxis(array, 0, -1) for array in pixels]
        if return_tensors is None:
            return BatchFeature(pixel_values=pixels)
        if len({array.shape for array in pixels}) > 1:
            raise ValueError("pictures of different sizes make no batch; do_resize is off")
        batch = np.stack(pixels)
        if return_tensors == "np":
            return BatchFeature(pixel_values=batch)
        return BatchFeature(pixel_values=torch.from_numpy(batch).to(device))

    preprocess = __call__

    def resize(
        self,
        image: ImageInput,
        size: Mapping[str, int] | Sequence[int] | int | None = None,
        resample: int | None = None,
        *,
        data_format: ChannelFormat = "channels_first",
        input_data_format: ChannelFormat | None = None,
    ) -> Any:
        """Make a picture RGB and resize it.

        Args:
            image: The picture.
            size: {"height": H, "width": W} in pixels, or one side for both; None is the field's.
            resample: The number of a Pillow filter; None is the field's.
            data_format: Where the channels of the result are.
            input_data_format: Where the channels of an array or tensor are; None looks for them.

        Returns:
            (3, H, W) uint8, or float32 in [0, 1] of a picture that is so. A tensor of a tensor, otherwise
            an array.
        """
        chosen = self._with_overrides({"size": size, "resample": resample, "do_resize": True})
        pixels: NDArray[Any] = chosen._to_pixels(image, input_data_format)
        if _is_unit_float(image):
            pixels = (pixels / 255).astype(np.float32)
        return _like(image, np.moveaxis(pixels, 0, -1) if data_format == "channels_last" else pixels)

    def rescale(self, image: ArrayLike, scale: float | None = None) -> Any:
        """Multiply pixel values, in float64, rounded to float32.

        Args:
            image: An array or tensor of any shape.
            scale: The factor; None is `rescale_factor`.

        Returns:
            The same shape in float32; a tensor of a tensor, else an array.
        """
        factor = self.rescale_factor if scale is None else scale
        return _like(image, (_as_array(image).astype(np.float64) * factor).astype(np.float32))

    def normalize(
        self,
        image: ArrayLike,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        *,
        input_data_format: ChannelFormat | None = None,
    ) -> Any:
        """Subtract each channel's mean and divide by its deviation.

        Args:
            image: (..., C, H, W) or (..., H, W, C), rescaled; integers become float32.
            mean: One number for each channel, or one for all; None is `image_mean`.
            std: Likewise; None is `image_std`.
            input_data_format: Where the channels are; None looks for them.

        Returns:
            The same shape in floating point; a tensor of a tensor, else an array.

        Raises:
            ValueError: There are not as many numbers as channels.
        """
        values = _as_array(image)
        if not np.issubdtype(values.dtype, np.floating):
            values = values.astype(np.float32)
        axis = _channel_axis(values.shape, input_data_format)
        count = values.shape[axis]
        shift, scale = (
            _by_channel(name, given, count, axis).astype(values.dtype)
            for name, given in (
                ("mean", self.image_mean if mean is None else mean),
                ("std", self.image_std if std is None else std),
            )
        )
        return _like(image, (values - shift) / scale)

    def rescale_and_normalize(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Rescale and normalize 8-bit pixels, (..., 3, H, W), by the fields, to float32.

        The steps are done on the 256 possible values of each channel, and looked up from there: the same
        bits, and faster. Where both steps are off, the pixels come back unchanged.
        """
        if not (self.do_rescale or self.do_normalize):
            return pixels
        table = self._value_table()
        planes = [table[channel][pixels[..., channel, :, :]] for channel in range(3)]
        return np.stack(planes, axis=-3)

    def denormalize(self, pixel_values: NDArray[Any]) -> NDArray[np.uint8]:
        """Undo `rescale_and_normalize`: (..., 3, H, W) as a model sees or predicts it, to uint8, clipped."""
        values = np.asarray(pixel_values, dtype=np.float64)
        if self.do_normalize:
            mean, deviation = (np.reshape(v, (3, 1, 1)) for v in (self.image_mean, self.image_std))
            values = values * deviation + mean
        if self.do_rescale:
            values = values / self.rescale_factor
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        subfolder: str = "",
        **overrides: Any,
    ) -> Self:
        """Read a preprocessor_config.json.

        Args:
            pretrained_model_name_or_path: A folder, a file in it, a JSON file of any name, or a hub id.
            cache_dir: The folder of the local cache; None is the hub client's own.
            force_download: Download again what is cached.
            local_files_only: Take the file from the cache alone.
            token: The hub's access token; True for the stored one, False for none.
            revision: The hub's branch, tag or commit; None is "main".
            subfolder: The folder inside the folder or repository that holds the file.
            **overrides: Fields that take other values; None leaves a field as it is.

        Raises:
            ModelNotFound: There is no such place, or no such file in it.
            ConfigError: An override is not supported or is no field, or a field breaks a rule.
        """
        path = find_preprocessor(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            force_download=force_download,
            local_files_only=local_files_only,
            subfolder=subfolder,
        )
        return cls.from_dict(read_json(path), **overrides)

    @classmethod
    def for_checkpoint(cls, files: CheckpointFiles, config: EncoderConfig) -> Self:
        """Make the processor that a checkpoint was trained with.

        Args:
            files: The checkpoint's files. Its preprocessor_config.json is taken; without one, the mean,
                deviation and filter of timm's config.json, or else ImageNet's statistics.
            config: Gives the size where there is no preprocessor_config.json.
        """
        if files.preprocessor:
            return cls.from_dict(read_json(files.preprocessor))
        height, width = config.image_shape
        chosen: dict[str, Any] = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
        values = read_json(files.config) if files.config else {}
        if is_timm_config(values):
            chosen.update(_timm_fields(values))
        return cls(size={"height": height, "width": width}, **chosen)

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False) -> list[str]:
        """Write preprocessor_config.json into a folder, which is made where it is not there.

        Args:
            save_directory: The folder.
            push_to_hub: Must be False: nothing is uploaded.

        Returns:
            The paths of the files that were written.
        """
        if push_to_hub:
            raise ConfigError("push_to_hub", push_to_hub, _UNSUPPORTED["push_to_hub"])
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        path = os.path.join(save_directory, PREPROCESSOR_NAME)
        self.to_json_file(path)
        return [path]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as preprocessor_config.json has them."""
        height, width = self.height_width
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        values.update(size={"height": height, "width": width}, image_mean=list(self.image_mean))
        values.update(image_std=list(self.image_std), image_processor_type="ViTImageProcessor")
        if self.do_convert_rgb is None:
            del values["do_convert_rgb"]  # files from before the field have no such key
        return {**self.extra, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:
        """Make a processor of what `to_dict` gives.

        Args:
            values: Fields by name. Unknown keys go to `extra`; absent ones, and null, take their default.
            **overrides: Fields that take other values; None leaves a field as it is.

        Raises:
            ConfigError: An override is not supported or is no field, or a field breaks a rule.
        """
        known = {f.name for f in fields(cls)} - {"extra"}
        given = {name: value for name, value in values.items() if name in known and value is not None}
        extra = {k: v for k, v in values.items() if k not in known and k not in _IGNORED}
        return cls(**given, extra=extra)._with_overrides(overrides)

    def to_json_string(self) -> str:
        """`to_dict` as JSON text, indented, with its keys sorted."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Write `to_dict` to a JSON file."""
        write_json(json_file_path, self.to_dict())

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """Read what `to_json_file` wrote. Raises `CheckpointError` where it is not a JSON object."""
        return cls.from_dict(read_json(json_file))

    def _with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """Itself, or a copy with some fields replaced; None leaves a field as it is."""
        known = {f.name for f in fields(self)} - {"extra"}
        for name, value in overrides.items():
            if name in _UNSUPPORTED and value and (name, value) != ("backend", "pil"):
                raise ConfigError(name, value, _UNSUPPORTED[name])
            if name not in {*known, *_UNSUPPORTED, *_WITHOUT_EFFECT}:
                raise ConfigError(name, value, f"is not a field of {type(self).__name__}")
        given = {name: value for name, value in overrides.items() if name in known and value is not None}
        return replace(self, **given) if given else self

    def _process(self, image: ImageInput, input_data_format: ChannelFormat | None) -> NDArray[Any]:
        """One picture's pixel values, (3, H, W)."""
        if self.do_rescale or not _is_unit_float(image):
            return self.rescale_and_normalize(self._to_pixels(image, input_data_format))
        # Floats in [0, 1] with do_rescale off are scaled already and stay so.
        if self.do_resize:
            eight_bits = replace(self, do_rescale=True, rescale_factor=1 / 255)
            return eight_bits.rescale_and_normalize(eight_bits._to_pixels(image, input_data_format))
        values = _unit_planes(image, input_data_format)
        return self._standardize(values) if self.do_normalize else values

    def _to_pixels(self, image: ImageInput, input_data_format: ChannelFormat | None) -> NDArray[np.uint8]:
        """One picture as RGB, resized where `do_resize` is on: (3, H, W) uint8."""
        if isinstance(image, str | os.PathLike):
            image = _open_picture(image)
        if self.do_convert_rgb is False:
            _require_rgb(image, input_data_format)
        rgb, note = to_rgb(image, input_data_format)
        if note:
            logger.log(logging.WARNING if note.startswith(_FOUR_CHANNELS) else logging.INFO, "%s", note)
        if self.do_resize:
            height, width = self.height_width
            rgb = rgb.resize((width, height), Image.Resampling(self.resample))
        return np.ascontiguousarray(np.moveaxis(np.asarray(rgb), -1, 0))

    def _value_table(self) -> NDArray[np.float32]:
        """(3, 256): what each 8-bit value of each channel becomes, rounded where the reference rounds."""
        values = np.arange(256, dtype=np.float64)
        if self.do_rescale:
            values = values * self.rescale_factor
        table = np.repeat(values.astype(np.float32)[None], 3, axis=0)
        return self._standardize(table[:, None])[:, 0] if self.do_normalize else table

    def _standardize(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(3, H, W), rescaled, minus `image_mean` and divided by `image_std`."""
        mean, deviation = (
            np.asarray(v, dtype=np.float32).reshape(3, 1, 1) for v in (self.image_mean, self.image_std)
        )
        standard: NDArray[np.float32] = (values - mean) / deviation
        return standard


class AutoImageProcessor:
    """Makes the processor that a preprocessor_config.json names: `ViTImageProcessor`, by any of its names."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        subfolder: str = "",
        **overrides: Any,
    ) -> ViTImageProcessor:
        """As `ViTImageProcessor.from_pretrained`, of a file that says which processor it is for.

        Args:
            pretrained_model_name_or_path: A folder, a file in it, a JSON file of any name, or a hub id.
            cache_dir: The folder of the local cache; None is the hub client's own.
            force_download: Download again what is cached.
            local_files_only: Take the file from the cache alone.
            token: The hub's access token; True for the stored one, False for none.
            revision: The hub's branch, tag or commit; None is "main".
            subfolder: The folder inside the folder or repository that holds the file.
            **overrides: Fields that take other values; None leaves a field as it is.

        Raises:
            ModelNotFound: There is no such place, or no such file in it.
            ConfigError: The file is another processor's, or an override is not supported or is no field.
        """
        path = find_preprocessor(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            force_download=force_download,
            local_files_only=local_files_only,
            subfolder=subfolder,
        )
        values = read_json(path)
        for kind in ("image_processor_type", "feature_extractor_type"):
            if values.get(kind, _KINDS[0]) not in _KINDS:
                raise ConfigError(kind, values[kind], f"must be one of {', '.join(_KINDS)}")
        return ViTImageProcessor.from_dict(values, **overrides)


# Reading pictures, and converting them to RGB

_FOUR_CHANNELS = "4-channel array"
_WEB_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


def to_rgb(image: ImageInput, channels: ChannelFormat | None = None) -> tuple[Image.Image, str | None]:
    """Convert a picture to an RGB image.

    Transparency (RGBA, LA, palettes with a transparent colour) is laid on white; grey is repeated; 16 bits
    become 8 by division by 257; 32-bit grey is stretched from its own range; CMYK, LAB, YCbCr and HSV are
    converted by Pillow. In arrays, floating point in [0, 1] is taken for 0 to 255, and four channels are
    taken for RGBA.

    Args:
        image: The picture.
        channels: Where the channels of an array or tensor are; None looks for them.

    Returns:
        The image, and a sentence on how it was converted, None where it was RGB already.

    Raises:
        ValueError: An array has other axes than a picture, or values outside 0 to 255.
        TypeError: It is something else than a picture.
        PhotoError: A file cannot be read or decoded.
    """
    if isinstance(image, str | os.PathLike):
        image = _open_picture(image)
    if isinstance(image, np.ndarray | Tensor):
        return _array_to_rgb(_as_array(image), channels)
    if not isinstance(image, Image.Image):
        kinds = "a Pillow image, an array, a tensor or a path"
        raise TypeError(f"a picture is {kinds}, not {type(image).__name__}")
    return _pillow_to_rgb(image)


def _split_batch(images: ImageInput | Iterable[ImageInput]) -> list[ImageInput]:
    """One picture, several, or a batch with four axes, as a list."""
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, Iterable) and not isinstance(images, Image.Image | str | bytes | os.PathLike):
        return list(images)
    return [images]


def _open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """The picture in a file, turned as its EXIF orientation says.

    Raises `ValueError` for a web address, since nothing is fetched, and `PhotoError`.
    """
    text = os.fspath(path)
    if _WEB_ADDRESS.match(text):
        raise ValueError(
            f"{display_path(text[:100])} is a web address, and nothing is downloaded here; "
            "save the picture to a file and give its path"
        )
    try:
        with Image.open(text) as image:
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise UnsupportedPhoto(path, "not a picture in a format that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise PhotoTooLarge(path, str(error)) from error
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise UnreadablePhoto(path, error.strerror or str(error)) from error
        raise DamagedPhoto(path, str(error) or type(error).__name__) from error


def _as_array(image: ArrayLike) -> NDArray[Any]:
    if not isinstance(image, Tensor):
        return np.asarray(image)
    image = image.detach().cpu()
    array: NDArray[Any] = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    return array


def _like(image: object, array: NDArray[Any]) -> Any:
    """The array as a tensor on the image's device where the image is a tensor."""
    if not isinstance(image, Tensor):
        return array
    return torch.from_numpy(np.ascontiguousarray(array)).to(image.device)


def _is_unit_float(image: object) -> bool:
    """Whether it is an array or tensor of floating point in [0, 1]."""
    if not isinstance(image, np.ndarray | Tensor):
        return False
    array = _as_array(image)
    if not np.issubdtype(array.dtype, np.floating) or array.size == 0:
        return False
    return bool(array.min() >= 0 and array.max() <= 1)


def _unit_planes(image: object, channels: ChannelFormat | None) -> NDArray[np.float32]:
    """An array of floats in [0, 1] as (3, H, W) float32, not rounded to 8 bits; grey is repeated."""
    assert isinstance(image, np.ndarray | Tensor)
    planes = np.moveaxis(_channels_last(_as_array(image), channels), -1, 0).astype(np.float32)
    if len(planes) == 4:
        raise ValueError("floating point with transparency must be made 8 bits first")
    return np.ascontiguousarray(np.broadcast_to(planes, (3, *planes.shape[1:])))


def _require_rgb(image: ImageInput, channels: ChannelFormat | None) -> None:
    """Raise `ValueError` for a picture that would have to be converted to be RGB."""
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise ValueError(f"a picture of mode {image.mode} is not RGB, and do_convert_rgb is off")
    elif isinstance(image, np.ndarray | Tensor):
        count = _channels_last(_as_array(image), channels).shape[-1]
        if count != 3:
            advice = "array[..., :3] drops the fourth" if count == 4 else "np.repeat makes three of one"
            raise ValueError(f"a {count}-channel array is not RGB, and do_convert_rgb is off; {advice}")


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
    """Grey values as RGB, with the lowest at 0 and the highest at 255."""
    low, high = float(values.min()), float(values.max())
    eight = np.rint((values - low) * (255 / (high - low) if high > low else 0))
    return Image.fromarray(eight.astype(np.uint8)).convert("RGB")


def _array_to_rgb(array: NDArray[Any], channels: ChannelFormat | None) -> tuple[Image.Image, str | None]:
    eight, note = _to_uint8(_channels_last(array, channels))
    depth = eight.shape[-1]
    if depth == 3:
        return Image.fromarray(np.ascontiguousarray(eight)), note
    if depth == 4:
        rgb = _on_white(Image.fromarray(np.ascontiguousarray(eight)))
        taken = f"{_FOUR_CHANNELS}: taken for RGBA, transparency laid on white; array[..., :3] would drop it."
        return rgb, " ".join(filter(None, (taken, note)))
    rgb, converted = _pillow_to_rgb(Image.fromarray(np.ascontiguousarray(eight[..., 0])))
    return rgb, " ".join(filter(None, (note, converted)))


def _channels_last(array: NDArray[Any], channels: ChannelFormat | None) -> NDArray[Any]:
    """A picture as (H, W, C), with C of 1, 3 or 4."""
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"a picture has axes (H, W), HWC or CHW, not {array.shape}")
    return np.moveaxis(array, _channel_axis(array.shape, channels), -1)


def _channel_axis(shape: tuple[int, ...], channels: ChannelFormat | None) -> int:
    """-3 or -1: the axis of the channels in (..., C, H, W) or (..., H, W, C).

    Where either could be, an axis of three entries is, and the first of two.
    """
    axis: int | None
    if channels is None:
        candidates = [(3, -3), (3, -1), (4, -1), (4, -3), (1, -1), (1, -3)]
        sides = shape if len(shape) >= 3 else (0, *shape)
        axis = next((axis for count, axis in candidates if sides[axis] == count), None)
    else:
        axis = -3 if channels == "channels_first" else -1
    if axis is None or len(shape) < 3 or shape[axis] not in (1, 3, 4):
        raise ValueError(f"no axis of {shape} holds 1, 3 or 4 channels")
    return axis


def _to_uint8(array: NDArray[Any]) -> tuple[NDArray[np.uint8], str | None]:
    """Values of any dtype as 8 bits, and a sentence on how, or None where nothing was scaled."""
    if array.dtype == np.uint8:
        return array, None
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), "bool array: true made 255."
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) // 257).astype(np.uint8), "uint16 array: 16 bits made 8."
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):  # false for NaN too
        raise ValueError(f"pixels must be 0 to 255, or 0 to 1 in floating point, not {low:g} to {high:g}")
    if np.issubdtype(array.dtype, np.floating) and high <= 1:
        return np.rint(array * 255).astype(np.uint8), f"{array.dtype} array: [0, 1] made 0 to 255."
    return array.astype(np.uint8), None


# Parsing fields


def _parse_size(size: Mapping[str, int] | Sequence[int] | int) -> SizeDict:
    rule = 'must be a side in pixels, or {"height": H, "width": W}'
    if isinstance(size, int):
        size = {"height": size, "width": size}
    elif isinstance(size, list | tuple) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    if not isinstance(size, Mapping) or not {"height", "width"} <= size.keys():
        raise ConfigError("size", size, rule)
    sides = SizeDict(height=size["height"], width=size["width"])
    if not all(isinstance(side, int) and side > 0 for side in sides.values()):
        raise ConfigError("size", size, rule)
    return sides


def _parse_resample(resample: int) -> int:
    if resample not in set(Image.Resampling):
        raise ConfigError("resample", resample, "must be the number of one of Pillow's filters")
    return int(resample)


def _three(name: str, values: Sequence[float] | float) -> tuple[float, ...]:
    numbers = (values,) * 3 if isinstance(values, int | float) else tuple(values)
    if len(numbers) != 3 or not all(isinstance(number, int | float) for number in numbers):
        raise ConfigError(name, values, "must be three numbers, or one for all channels")
    return tuple(float(number) for number in numbers)


def _by_channel(name: str, values: float | Sequence[float], count: int, axis: int) -> NDArray[np.float64]:
    """One number a channel, with the axes that broadcast it over an array whose channels are at `axis`."""
    numbers = np.broadcast_to(values, count) if np.ndim(values) == 0 else np.asarray(values, dtype=np.float64)
    if numbers.shape != (count,):
        raise ValueError(f"{name} must have {count} numbers, one for each channel, not {numbers.size}")
    return numbers.reshape(-1, 1, 1) if axis == -3 else numbers


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
