"""The image processor's arguments of one call, its formats, and `AutoImageProcessor`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from transformers import ViTImageProcessorPil

from vitmae_search.errors import ConfigError, ModelNotFound
from vitmae_search.vitmae import IMAGENET_MEAN, IMAGENET_STD, AutoImageProcessor, ViTImageProcessor

OVERRIDES: list[dict[str, Any]] = [
    {"do_resize": False},
    {"size": {"height": 40, "width": 64}},
    {"size": {"height": 31, "width": 17}, "resample": 3},
    {"resample": Image.Resampling.LANCZOS},
    {"do_rescale": False},
    {"rescale_factor": 1 / 127.5},
    {"do_normalize": False},
    {"do_rescale": False, "do_normalize": False},
    {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD), "do_convert_rgb": True},
    {"do_convert_rgb": False},
]


def theirs(processor: Any, images: Any, **overrides: Any) -> NDArray[Any]:
    result: NDArray[Any] = processor(images, return_tensors="np", **overrides)["pixel_values"]
    return result


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_an_override_holds_for_one_call(overrides: dict[str, Any], photos: dict[str, Image.Image]) -> None:
    ours, reference = ViTImageProcessor(), ViTImageProcessorPil()
    photo = photos["coffee"]
    before, plain = ours.to_dict(), ours(photo, return_tensors="np").pixel_values
    found = ours(photo, return_tensors="np", **overrides).pixel_values
    expected = theirs(reference, photo, **overrides)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    if set(overrides) != {"do_convert_rgb"}:
        assert found.shape != plain.shape or not np.array_equal(found, plain)
    assert ours.to_dict() == before
    assert np.array_equal(ours(photo, return_tensors="np").pixel_values, plain)


def test_a_batch_of_unequal_pictures(photos: dict[str, Image.Image]) -> None:
    pictures = list(photos.values())
    assert len({picture.size for picture in pictures}) > 3
    ours, reference = ViTImageProcessor(), ViTImageProcessorPil()
    size = {"height": 24, "width": 56}
    found = ours(images=pictures, return_tensors="pt", size=size).pixel_values
    assert torch.equal(found, reference(images=pictures, return_tensors="pt", size=size)["pixel_values"])
    assert found.shape == (len(pictures), 3, 24, 56)
    listed, expected = ours(pictures, do_resize=False), reference(pictures, do_resize=False)
    for mine, reference_s in zip(listed.pixel_values, expected["pixel_values"], strict=True):
        assert np.array_equal(mine, reference_s)


@pytest.mark.parametrize("channels", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_arrays_in_each_order(channels: Any, dtype: Any, photos: dict[str, Image.Image]) -> None:
    array = np.asarray(photos["china"].resize((50, 30))).astype(dtype)
    array = np.moveaxis(array, -1, 0) if channels == "channels_first" else array
    found = ViTImageProcessor()(array, return_tensors="np", input_data_format=channels).pixel_values
    expected = theirs(ViTImageProcessorPil(), array, input_data_format=channels)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("do_resize", [True, False])
@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_floats_that_are_scaled_already(
    do_resize: bool, do_normalize: bool, kind: str, photos: dict[str, Image.Image]
) -> None:
    array: Any = np.asarray(photos["china"].resize((50, 30)), dtype=np.float32) / np.float32(255) * 0.93
    options = {"do_rescale": False, "do_resize": do_resize, "do_normalize": do_normalize}
    given = torch.from_numpy(array).permute(2, 0, 1) if kind == "tensor" else array
    found = ViTImageProcessor()(given, return_tensors="np", **options).pixel_values
    expected = theirs(ViTImageProcessorPil(), array, **options)
    # The reference rounds to 8 bits to resize, by cutting off: one step of 1/255 at most.
    step = (1 / 255 / 0.5 if do_normalize else 1 / 255) if do_resize else 0
    assert float(np.abs(found - expected).max()) <= step + 1e-6
    doubly_scaled = ViTImageProcessor()(given, return_tensors="np", **{**options, "do_rescale": True})
    assert float(np.abs(doubly_scaled.pixel_values - found).max()) < 0.01  # ours sees that it is


def test_channels_can_come_last(photos: dict[str, Image.Image]) -> None:
    ours = ViTImageProcessor(size=24)
    first = ours(photos["china"], return_tensors="np").pixel_values
    last = ours(photos["china"], return_tensors="np", data_format="channels_last").pixel_values
    assert np.array_equal(np.moveaxis(first, 1, -1), last)
    assert np.array_equal(ours.preprocess(photos["china"], return_tensors="np").pixel_values, first)


def test_none_leaves_a_field_as_it_is(photos: dict[str, Image.Image]) -> None:
    ours = ViTImageProcessor(size=24)
    plain = ours(photos["china"], return_tensors="np").pixel_values
    same = ours(photos["china"], return_tensors="np", size=None, do_resize=None, image_mean=None).pixel_values
    assert np.array_equal(plain, same)


def test_what_is_not_rgb_can_be_refused(photos: dict[str, Image.Image]) -> None:
    strict = ViTImageProcessor(do_convert_rgb=False)
    assert strict(photos["china"]).pixel_values[0].shape == (3, 224, 224)
    for mode in ("L", "RGBA", "CMYK"):
        with pytest.raises(ValueError, match=f"mode {mode} is not RGB, and do_convert_rgb is off"):
            strict(photos["china"].convert(mode))
        assert strict(photos["china"].convert(mode), do_convert_rgb=True).pixel_values[0].shape[0] == 3


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_converted_as_the_reference_converts(mode: str, photos: dict[str, Image.Image]) -> None:
    picture = photos["coffee"].convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    found = ViTImageProcessor()(picture, return_tensors="np").pixel_values
    assert np.array_equal(found, theirs(ViTImageProcessorPil(), picture, do_convert_rgb=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"return_tensors": "tf"}, "return_tensors='tf'"),
        ({"do_resise": True}, "do_resise=True: is not a field of ViTImageProcessor"),
        ({"size": {"shortest_edge": 3}}, "size="),
        ({"image_std": [0, 0, 0]}, "image_std="),
    ],
)
def test_an_argument_that_is_none_is_refused(
    arguments: dict[str, Any], message: str, photos: dict[str, Image.Image]
) -> None:
    with pytest.raises(ConfigError, match=message):
        ViTImageProcessor()(photos["china"], **arguments)


def test_files_with_overrides(tmp_path: Path) -> None:
    ViTImageProcessor(size=32, do_convert_rgb=True).save_pretrained(tmp_path)
    assert transformers.ViTImageProcessorPil.from_pretrained(tmp_path).do_convert_rgb is True
    loaded = ViTImageProcessor.from_pretrained(tmp_path, size={"height": 16, "width": 24}, resample=3)
    assert (loaded.height_width, loaded.resample, loaded.do_convert_rgb) == ((16, 24), 3, True)
    with pytest.raises(ConfigError, match="crop=True: is not a field"):
        ViTImageProcessor.from_pretrained(tmp_path, crop=True)


@pytest.mark.parametrize(
    "kind",
    [
        {"image_processor_type": "ViTImageProcessor"},
        {"image_processor_type": "ViTImageProcessorFast"},
        {"feature_extractor_type": "ViTFeatureExtractor"},
        {},
    ],
)
def test_a_file_chooses_its_processor(kind: dict[str, str], tmp_path: Path) -> None:
    values = ViTImageProcessor(size=48).to_dict()
    del values["image_processor_type"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**values, **kind}))
    chosen = AutoImageProcessor.from_pretrained(tmp_path, do_normalize=False)
    assert chosen == ViTImageProcessor(size=48, do_normalize=False)


def test_another_s_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"has no preprocessor_config\.json"):
        AutoImageProcessor.from_pretrained(tmp_path)
    transformers.BeitImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="image_processor_type='BeitImageProcessor"):
        AutoImageProcessor.from_pretrained(tmp_path)


def test_what_it_returns_feeds_a_model(
    photos: dict[str, Image.Image], random_model: Callable[..., Any]
) -> None:
    inputs = ViTImageProcessor(size=32)(images=photos["china"], return_tensors="pt")
    assert random_model()(**{name: value.to("cpu") for name, value in inputs.items()}).logits.shape[0] == 1
    assert random_model()(**inputs.to(torch.float64)).mask.shape == (1, 16)
